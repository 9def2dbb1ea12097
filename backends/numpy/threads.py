"""Threads over pieces of work: numpy releases Python's lock in its loops."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any


def count_threads() -> int:
    """How many threads this process may run at once."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run_in_threads(run: Callable[[Sequence[Any]], None], pieces: Sequence[Any], threads: int) -> None:
    """Calls `run` with each thread's share of the pieces, in the caller's context: numpy's error state."""
    threads = max(1, min(threads, len(pieces)))
    if threads == 1:
        return run(pieces)
    with ThreadPoolExecutor(threads) as pool:
        shares = [pool.submit(copy_context().run, run, pieces[start::threads]) for start in range(threads)]
    for share in shares:
        share.result()
    return None
