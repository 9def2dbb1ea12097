"""Seconds of a call, and the memory that it needs beside what is there."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from memory import peak, reset_peak


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


def least_cpu_seconds(function: Callable[[], Any], repeats: int = 7) -> float:
    """The least CPU time of all threads in a call, which other jobs on the machine disturb least."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


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
