"""Times and memory of one run: printed as they come, written at the end with the machine's name."""

import json
import platform
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
MB = 1e6
ROW_SECONDS = 75.0  # of one row at most, most of it spent by a compiler
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

    def __init__(self, device: str, name: str) -> None:
        self.device, self.name, self.rows, self.copy = device, name, [], float("nan")
        self.timer: Timer = time_gpu if device == "cuda" else time_cpu
        self.deadline, self.facts = float("inf"), None

    def keep(self, **facts: Any) -> None:
        """Writes from now on after every row."""
        self.facts = facts

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
        self.rows.append(row)
        print(f"{case!s:40s}{who:44s}", end="", flush=True)

        def figures() -> None:
            known = {**(check(function()) if check else {}), **more}
            seconds, extra = (timer or self.timer)(function)
            print(self._fill(row, seconds, extra, moved or case.moved, known), flush=True)

        wrong = attempt(figures, self.deadline, ROW_SECONDS)
        if wrong is not None:
            row["failed"] = wrong
            print(wrong.splitlines()[0], flush=True)
        if self.device == "cuda" and "failed" in row:
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
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"token_statistics_{self.device}.json"
        versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        head = {"device": self.name, "copy_gb_per_s": self.copy, **versions, **facts}
        path.write_text(json.dumps({**head, "rows": self.rows}, indent=1) + "\n")
        return path


def time_cpu(function: Callable[[], Any], repeats: int = 5) -> tuple[list[float], float]:
    """Wall seconds, and growth of the process's peak memory in the first call."""
    before = reset_peak()
    function()
    extra = peak() - before
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds, max(extra, 0.0)


def time_gpu(function: Callable[[], Any]) -> tuple[list[float], float]:
    """Seconds by events, 200 ms of them, the cache filled with other data in between; and peak allocation."""
    function()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - before
    # Read, not written: what a cache has yet to write back would be counted against the next call.
    other = torch.zeros(2**28, dtype=torch.int8, device="cuda")

    def calls(count: int) -> list[float]:
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for start, end in marks:
            other.amax()
            start.record()
            function()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in marks]

    estimate = float(np.median(calls(3)))
    return calls(int(min(max(0.2 / max(estimate, 1e-6), 5), 500))), extra


def attempt(function: Callable[[], Any], deadline: float, limit: float = float("inf")) -> str | None:
    """Calls the function, unless the deadline has passed; what went wrong, or None."""
    try:
        if time.monotonic() > deadline:
            raise TimeoutError("left out, since the time is over")
        with at_most(limit):
            function()
    except Exception as error:
        # The traceback would keep the function's arrays; they have to go before the next one begins.
        traceback.clear_frames(error.__traceback__)
        return f"{type(error).__name__}: {str(error).strip()[:200]}"
    return None


@contextmanager
def at_most(limit: float) -> Iterator[None]:
    """A TimeoutError, as soon as Python is back, in what takes more than `limit` seconds."""

    def over(*_: Any) -> None:
        raise TimeoutError(f"took more than {limit:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, limit if limit < float("inf") else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reset_peak() -> float:
    """Sets the kernel's high-water mark back, where it allows that; the current mark in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak()
    return peak()


def peak() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024.0 * int(line.split()[1])
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()
