"""Everything that a GPU has to show, in one command of under ten minutes; the most important comes first.

    python benchmarks/on_gpu.py --output results                    # on the GPU's machine
    python benchmarks/on_gpu.py --output results --wheels wheels    # which lacks packages and has no network
    python benchmarks/on_gpu.py --output runs/rehearsal --rehearse  # all of it, tiny, by Triton's interpreter

Each part is a process with a limit of its own, so that none takes the time of the next, and writes what it
has as it goes: a part that is stopped keeps that. The same command with the same folder goes on from there.
The exit status is 1 where something failed, and 0 where at most the time was over.
"""

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from records import UNFINISHED, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
# Seconds that each part may take; what they leave of the whole is the last one's.
LIMITS = {"machine": 25.0, "tests": 140.0, "check": 65.0, "table": 190.0, "step": 90.0, "study": 40.0}
SECONDS = 550.0
ENDING = 25.0  # seconds of its limit for what a part does before it starts the clock, and after its last row
GRACE = 5.0  # seconds between asking a part to end and ending it


def make_command(name: str, output: Path, study: Path, limit: float, rehearse: bool) -> list[str]:
    """What Python is to run for a part."""
    where = ["--output", str(output), "--time-limit", f"{max(limit - ENDING, limit / 2):.0f}"]
    return {
        "machine": ["benchmarks/machine.py"],
        "tests": ["benchmarks/gpu_tests.py", str(output / "gpu_tests.jsonl")],
        "check": ["-m", "credit.check"],
        "table": ["benchmarks/token_statistics.py", "--rehearse" if rehearse else "--gpu", *where],
        "step": [
            *("benchmarks/trl_step.py", "--size", "tiny" if rehearse else "cuda"),
            *("--rounds", "1", "--threads", "8", *where),
        ],
        "study": [
            *("examples/study/run.py", "--output", str(study), *where[2:]),
            *(
                ["--plan", "smoke"]
                if rehearse
                else ["--plan", "reduced", "--device", "cuda", "--workers", "2"]
            ),
        ],
    }[name]


class Call:
    """One call: what became of each part is in `on_gpu.json`, what all of them printed in `on_gpu.log`."""

    def __init__(self, output: Path, rehearse: bool) -> None:
        self.record, self.log = output / "on_gpu.json", output / "on_gpu.log"
        self.parts: dict[str, dict[str, Any]] = read_json(self.record).get("parts", {})
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # torch needs memory too
        }
        if rehearse:
            self.environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}

    def run(self, name: str, command: list[str], limit: float) -> None:
        """Runs a part for `limit` seconds at most: it is done, failed, or stopped where they were over."""
        self.say(f"== {name}: at most {limit:.0f} s")
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        saying = threading.Thread(target=self.say_lines, args=[process.stdout], daemon=True)
        saying.start()
        status = wait(process, limit)
        saying.join(GRACE)
        outcome = {0: "done", None: "stopped", UNFINISHED: "stopped"}.get(status, "failed")
        seconds = round(time.monotonic() - started, 1)
        self.parts[name] = {
            "outcome": outcome,
            "exit_status": status,
            "seconds": seconds,
            "limit": round(limit),
        }
        write_json(self.record, {"parts": self.parts})
        self.say(f"== {name}: {outcome} after {seconds} s")

    def say_lines(self, lines: TextIO) -> None:
        with lines:
            for line in lines:
                self.say(line.rstrip("\n"))

    def say(self, line: str) -> None:
        print(line, flush=True)
        with self.log.open("a") as log:
            log.write(line + "\n")


def wait(process: subprocess.Popen[str], limit: float) -> int | None:
    """The exit status, or None where the part had to be ended, with all that it started."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        end(process, "SIGTERM")
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    end(process, "SIGKILL")
    process.wait()
    return None


def end(process: subprocess.Popen[str], sign: str) -> None:
    """Sends the signal to the part and all that it started; on Windows, which has neither, ends the part."""
    if not hasattr(os, "killpg"):
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, getattr(signal, sign))


def find_limit(name: str, limits: dict[str, float], left: float) -> float:
    """The part's own seconds, or of the last part all that is left; never what the parts behind it need."""
    behind = list(limits)[list(limits).index(name) + 1 :]
    if not behind:
        return left
    scale = min(1.0, left / (limits[name] + sum(limits[other] for other in behind)))
    return limits[name] * scale


def run_parts(output: Path, limits: dict[str, float], deadline: float, rehearse: bool) -> Call:
    """Every part that is not done yet, until the deadline by time.monotonic()."""
    call = Call(output, rehearse)
    for name in limits:
        if call.parts.get(name, {}).get("outcome") == "done":
            call.say(f"== {name}: done before")
    open_parts = {name: limits[name] for name in limits if call.parts.get(name, {}).get("outcome") != "done"}
    with unpacked(output / "study.tar.gz") as folder:
        for name in open_parts:
            limit = round(find_limit(name, open_parts, deadline - time.monotonic()), 1)
            if limit > 0:
                call.run(name, make_command(name, output, folder / "study", limit, rehearse), limit)
    return call


@contextmanager
def unpacked(packed: Path) -> Iterator[Path]:
    """A temporary folder of what the archive holds, which gets at the end what is in it then."""
    with tempfile.TemporaryDirectory() as folder:
        if packed.exists():
            with tarfile.open(packed) as archive:
                archive.extractall(folder, filter="data")
        try:
            yield Path(folder)
        finally:
            if any(Path(folder).iterdir()):
                with tarfile.open(packed, "w:gz") as archive:
                    for path in Path(folder).iterdir():
                        archive.add(path, path.name)


def install(wheels: Path) -> str:
    """Installs a folder of wheels where nothing else is; the new folder."""
    site = tempfile.mkdtemp(prefix="site-")
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", site]
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise SystemExit(f"{wheels} holds no wheels; benchmarks/README.md has the line that fills it")
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *files], check=True)
    return site


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind, allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True, help="folder of the results, at most 8 files")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of what the machine lacks")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything (%(default).0f)")
    parser.add_argument(
        "--rehearse", action="store_true", help="on a CPU; without limits unless they are set"
    )
    for name, limit in LIMITS.items():
        parser.add_argument(
            f"--{name}", type=float, metavar="SECONDS", help=f"limit of the part ({limit:.0f})"
        )
    parser.add_argument("--only", nargs="+", choices=LIMITS, default=list(LIMITS), help="these parts")
    return parser.parse_args(arguments)


def main() -> int:
    """Runs the parts; 1 if one failed."""
    started, own = time.monotonic(), parse()
    own.output = own.output.resolve()
    own.output.mkdir(parents=True, exist_ok=True)
    if own.wheels:
        os.environ["PYTHONPATH"] = os.pathsep.join([install(own.wheels), os.environ.get("PYTHONPATH", "")])
    usual = dict.fromkeys(LIMITS, 3600.0) if own.rehearse else LIMITS
    limits = {name: getattr(own, name) or usual[name] for name in LIMITS if name in own.only}
    seconds = sum(limits.values()) if own.rehearse else own.seconds
    call = run_parts(own.output, limits, started + seconds, own.rehearse)
    for name in limits:
        call.say(f"{name:10s}{call.parts.get(name, {'outcome': 'not begun: the time was over'})['outcome']}")
    return int(any(part["outcome"] == "failed" for part in call.parts.values()))


if __name__ == "__main__":
    sys.exit(main())
