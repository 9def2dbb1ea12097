"""Times and memory of one run: printed as they come, written at the end with the machine's name."""

import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
MB = 1e6
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


class Report:
    """Rows of one run."""

    def __init__(self, device: str, name: str) -> None:
        self.device, self.name, self.rows, self.copy = device, name, [], float("nan")
        self.timer: Timer = time_gpu if device == "cuda" else time_cpu

    def measure(
        self,
        case: Case,
        who: str,
        function: Callable[[], Any],
        moved: int | None = None,
        timer: Timer | None = None,
        **more: Any,
    ) -> None:
        """Median time, GB/s of `moved` bytes, and peak memory beyond what was there."""
        row: dict[str, Any] = {**case._asdict(), "kind": str(case.kind)[6:], "who": who}
        self.rows.append(row)
        print(f"{case!s:40s}{who:44s}", end="", flush=True)
        try:
            seconds, extra = (timer or self.timer)(function)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            row["failed"] = "out of memory"
            print("out of memory", flush=True)
            return
        median = float(np.median(seconds))
        row["ms"] = 1e3 * median
        row["ms_p20_p80"] = [1e3 * float(q) for q in np.quantile(seconds, [0.2, 0.8])]
        row["ns_per_pair"] = 1e9 * median / (case.tokens * case.vocabulary)
        row["gb_per_s"] = (moved or case.moved) / median / 1e9
        row["percent_of_copy"] = 100 * row["gb_per_s"] / self.copy
        row |= {"extra_mb": extra / MB, **more}
        shown = "  ".join(f"{key} {value:.1e}" for key, value in more.items())
        print(
            f"{row['ms']:10.2f} ms{row['gb_per_s']:8.1f} GB/s{row['percent_of_copy']:6.0f}% of copy"
            f"{row['extra_mb']:10.1f} MB  {shown}",
            flush=True,
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
        print("written to", path)
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
    """Seconds by events, at least 200 ms of them, the cache cleared in between; and peak allocation."""
    import triton

    function()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - before
    taken = triton.testing.do_bench(function, warmup=50, rep=200, return_mode="all")
    return [ms / 1e3 for ms in taken], extra


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
