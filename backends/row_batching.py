"""Rows taken block by block, so that what is made on the way stays in a cache, or small on a device."""

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from array_api_compat import device, is_numpy_array

from credit.backends.arrays import is_inspectable, is_writable, namespace
from credit.backends.numpy.backend import count_threads

Array = Any
Key = TypeVar("Key", bound=Hashable)
CACHED = 2**18  # entries of a block's array on a CPU
BOUNDED = 2**24  # on an accelerator, where a launch costs more


def map_row_blocks(work: Callable[[slice], dict[Key, Array]], like: Array) -> dict[Key, Array]:
    """work(rows) for all rows of `like` [N, T]: arrays [N, ...] by key, of which `work` gives those rows.

    Blocks of numpy's arrays are shared by threads. All rows are taken at once where a program is traced,
    whose compiler cuts by itself, or arrays cannot be written to.
    """
    if not has_several_blocks(like):
        return work(slice(None))
    count, step = like.shape[0], _rows_per_block(like)
    _keep_freed_memory(like)
    first, *others = (slice(start, min(start + step, count)) for start in range(0, count, step))
    parts = work(first)
    whole = {name: _empty_like_part(part, count) for name, part in parts.items()}

    def fill(rows: slice, parts: dict[Key, Array]) -> None:
        for name, part in parts.items():
            whole[name][rows] = part

    def run(blocks: list[slice]) -> None:
        for rows in blocks:
            fill(rows, work(rows))

    fill(first, parts)
    _run_in_threads(run, others, min(count_threads(), len(others)) if is_numpy_array(like) else 1)
    return whole


def _run_in_threads(run: Callable[[list[slice]], None], blocks: list[slice], threads: int) -> None:
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
    if is_inspectable(like):
        namespace(like).empty(2**21)


def has_several_blocks(like: Array) -> bool:
    """Whether the rows of `like` [N, T] are taken in more than one block."""
    return like.shape[0] > _rows_per_block(like) and is_writable(like)


def _rows_per_block(like: Array) -> int:
    return max(1, (CACHED if is_inspectable(like) else BOUNDED) // like.shape[1])


def _empty_like_part(part: Array, count: int) -> Array:
    return namespace(part).empty((count, *part.shape[1:]), dtype=part.dtype, device=device(part))
