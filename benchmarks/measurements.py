"""Times and memory of one run: printed as they come, written at the end with the machine's name."""

import platform
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from records import read_json, write_json
from timing import least_cpu_seconds, time_cpu, time_gpu

RESULTS = Path(__file__).parent / "results"
MB = 1e6
ROW_SECONDS = 75.0  # of one row at most, most of it spent by a compiler
# Why a row has no figures, by the errors that say so, where that is nobody's fault.
NO_FAILURES = {"left_out": "OutOfTime", "not_installed": "ModuleNotFoundError"}
Timer = Callable[[Callable[[], Any]], tuple[list[float], float]]  # seconds of each call, and extra bytes


class Case(NamedTuple):
    """Two models' logits [tokens, vocabulary]."""

    name: str
    tokens: int
    vocabulary: int
    kind: torch.dtype

    @property
    def moved(self) -> int:
        """Bytes of one pass: each logit once."""
        return 2 * self.tokens * self.vocabulary * self.kind.itemsize

    def __str__(self) -> str:
        label = f"{self.name} {self.tokens} x {self.vocabulary:,} {str(self.kind)[6:]}"
        return label.strip()


class Lazy:
    """A call that is prepared when it is first made, so that what fails then fails in its own row."""

    def __init__(self, prepare: Callable[[], Callable[[], Any]]) -> None:
        self.prepare, self.function = prepare, None

    def __call__(self) -> Any:
        self.function = self.function or self.prepare()
        return self.function()


class Report:
    """Rows of one run; each is on disk as soon as it is measured, once `keep` was called."""

    def __init__(self, device: str, name: str, folder: Path = RESULTS, label: str = "") -> None:
        self.device, self.name, self.rows, self.copy = device, name, [], float("nan")
        self.path = folder / f"token_statistics_{label or device}.json"
        self.timer: Timer = time_gpu if device == "cuda" else time_cpu
        self.deadline, self.facts = float("inf"), None
        self.before: dict[tuple[Any, ...], dict[str, Any]] = {}

    def keep(self, **facts: Any) -> None:
        """Writes from now on after every row."""
        self.facts = facts

    def resume(self) -> None:
        """Takes the rows that an earlier run on the same device has measured as they are."""
        found = read_json(self.path)
        if found and found["device"] == self.name and found["torch"] == torch.__version__:
            self.before = {identify(row): row for row in found["rows"] if "ms" in row}

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The rows that went wrong; not those of peers that are not installed, nor those left out."""
        return [row for row in self.rows if "failed" in row]

    @property
    def is_complete(self) -> bool:
        """Whether no row was left out because the time was over."""
        return not any("left_out" in row for row in self.rows)

    def measure(
        self,
        case: Case,
        who: str,
        function: Callable[[], Any],
        moved: int | None = None,
        timer: Timer | None = None,
        check: Callable[[Any], dict[str, float]] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Median time, GB/s of `moved` bytes and peak memory beyond what was there; `check` sees a result.

        What goes wrong is said in the row, and costs no other. After the deadline nothing is begun.
        """
        row: dict[str, Any] = {**case._asdict(), "kind": str(case.kind)[6:], "who": who}
        print(f"{case!s:46s}{who:44s}", end="", flush=True)
        if identify(row) in self.before:
            self.rows.append(self.before[identify(row)])
            print("measured before", flush=True)
            return self.rows[-1]
        self.rows.append(row)

        def figures() -> None:
            known = {**(check(function()) if check else {}), **more}
            seconds, extra = (timer or self.timer)(function)
            if self.device == "cpu":
                known["cpu_ms"] = 1e3 * least_cpu_seconds(function)
            print(self._fill(row, seconds, extra, moved or case.moved, known), flush=True)

        wrong = attempt(figures, self.deadline, ROW_SECONDS)
        if wrong is not None:
            row[
                next((reason for reason, kind in NO_FAILURES.items() if wrong.startswith(kind)), "failed")
            ] = wrong
            print(wrong.splitlines()[0], flush=True)
            if self.device == "cuda":
                with suppress(RuntimeError):  # after some errors of CUDA every call raises the same
                    torch.cuda.empty_cache()
        if self.facts is not None:
            self.write(**self.facts)
        return row

    def _fill(
        self, row: dict[str, Any], seconds: list[float], extra: float, moved: int, more: dict[str, Any]
    ) -> str:
        """Puts the figures into the row; a line that says them."""
        median = float(np.median(seconds))
        row["ms"] = 1e3 * median
        row["ms_p20_p80"] = [1e3 * float(q) for q in np.quantile(seconds, [0.2, 0.8])]
        row["ns_per_pair"] = 1e9 * median / (row["tokens"] * row["vocabulary"])
        row["gb_per_s"] = moved / median / 1e9
        row["percent_of_copy"] = 100 * row["gb_per_s"] / self.copy
        row |= {"extra_mb": extra / MB, **more}
        shown = "  ".join(f"{key} {value:.1e}" for key, value in more.items())
        return (
            f"{row['ms']:10.3f} ms{row['gb_per_s']:8.1f} GB/s{row['percent_of_copy']:6.0f}% of copy"
            f"{row['extra_mb']:10.1f} MB  {shown}"
        )

    def measure_copy(self, source: torch.Tensor) -> None:
        """The bandwidth that everything else is a fraction of, of reading and writing `source`."""
        target = torch.empty_like(source)
        seconds, _ = self.timer(lambda: target.copy_(source))
        self.copy = 2 * source.nbytes / float(np.median(seconds)) / 1e9
        print(f"{self.name}, copy {self.copy:.1f} GB/s (read and write)")

    def write(self, **facts: Any) -> Path:
        """JSON with the machine's name beside the figures."""
        self.path.parent.mkdir(exist_ok=True, parents=True)
        versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        head = {"device": self.name, "copy_gb_per_s": self.copy, **versions, **facts}
        # What an earlier run measured and this one has not come to yet stays.
        have = {identify(row) for row in self.rows}
        rows = self.rows + [row for key, row in self.before.items() if key not in have]
        write_json(self.path, {**head, "rows": rows})
        return self.path


def identify(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a row from the others."""
    return tuple(row[name] for name in ("name", "tokens", "vocabulary", "kind", "who"))


class OutOfTime(Exception):
    """The deadline has passed."""


def attempt(function: Callable[[], Any], deadline: float, limit: float = float("inf")) -> str | None:
    """Calls the function, unless the deadline has passed; what went wrong, or None."""
    try:
        left = deadline - time.monotonic()
        if left < 0:
            raise OutOfTime("left out, since the time is over")
        late = OutOfTime("the time was over before it ended")
        with (
            at_most(limit, TimeoutError(f"took more than {limit:.0f} s"))
            if limit < left
            else at_most(left, late)
        ):
            function()
    except Exception as error:
        # The traceback would keep the function's arrays; they have to go before the next one begins.
        traceback.clear_frames(error.__traceback__)
        return f"{type(error).__name__}: {str(error).strip()[:200]}"
    return None


@contextmanager
def at_most(limit: float, error: Exception) -> Iterator[None]:
    """Raises the error, as soon as Python is back, in what takes more than `limit` seconds."""

    def over(*_: Any) -> None:
        raise error

    if not hasattr(signal, "SIGALRM"):  # on Windows, where nothing is cut short
        yield
        return
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, limit if limit < float("inf") else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cpu_name() -> str:
    """The processor's name; Linux alone says it in full."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
