"""Rows taken block by block, so that what is made on the way stays in a cache, or small on a device."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from array_api_compat import device, is_numpy_array

from credit.backends.arrays import inspectable, namespace, writable
from credit.backends.blocks import cores

Array = Any
CACHED = 2**18  # entries of a block's array on a CPU
BOUNDED = 2**24  # on an accelerator, where a launch costs more


def in_blocks(work: Callable[[slice], dict[str, Array]], like: Array) -> dict[str, Array]:
    """work(rows) for all rows of `like` [N, T]: arrays [N, ...] by name, of which `work` gives those rows.

    Blocks of numpy's arrays are shared by threads. All rows are taken at once where a program is traced,
    whose compiler cuts by itself, or arrays cannot be written to.
    """
    if not several(like):
        return work(slice(None))
    count, step = like.shape[0], _step(like)
    _keep_freed_memory(like)
    first, *others = (slice(start, min(start + step, count)) for start in range(0, count, step))
    parts = work(first)
    whole = {name: _empty(part, count) for name, part in parts.items()}

    def fill(rows: slice, parts: dict[str, Array]) -> None:
        for name, part in parts.items():
            whole[name][rows] = part

    def run(blocks: list[slice]) -> None:
        for rows in blocks:
            fill(rows, work(rows))

    fill(first, parts)
    _shared(run, others, min(cores(), len(others)) if is_numpy_array(like) else 1)
    return whole


def _shared(run: Callable[[list[slice]], None], blocks: list[slice], threads: int) -> None:
    """Calls `run` with each thread's share of the blocks, in the caller's context: numpy's error state."""
    if threads == 1:
        return run(blocks)
    with ThreadPoolExecutor(threads) as pool:
        shares = [pool.submit(copy_context().run, run, blocks[start::threads]) for start in range(threads)]
    for share in shares:
        share.result()
    return None


def _keep_freed_memory(like: Array) -> None:
    """Frees one larger array: glibc returns pieces to the system until it has seen such a one freed.

    A block's temporaries are otherwise paged in anew by every operation.
    """
    if inspectable(like):
        namespace(like).empty(2**21)


def several(like: Array) -> bool:
    """Whether the rows of `like` [N, T] are taken in more than one block."""
    return like.shape[0] > _step(like) and writable(like)


def _step(like: Array) -> int:
    return max(1, (CACHED if inspectable(like) else BOUNDED) // like.shape[1])


def _empty(part: Array, count: int) -> Array:
    return namespace(part).empty((count, *part.shape[1:]), dtype=part.dtype, device=device(part))
