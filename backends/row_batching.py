"""Rows computed block by block, so that temporaries stay in a CPU's cache, or small on a device."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from array_api_compat import device, is_numpy_array

from credit.backends import limits
from credit.backends.arrays import is_inspectable, is_writable, namespace
from credit.backends.numpy.threads import count_threads, run_in_threads

Array = Any
Key = TypeVar("Key", bound=Hashable)


def map_row_blocks(work: Callable[[slice], dict[Key, Array]], like: Array) -> dict[Key, Array]:
    """The arrays [N, ...] by key that `work(rows)` gives for all rows of `like` [N, T], in blocks of rows.

    The blocks of numpy arrays are divided among threads. All rows are one block while a program is traced,
    since its compiler does the blocking, and for libraries whose arrays cannot be written to.
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

    def run(blocks: Sequence[slice]) -> None:
        for rows in blocks:
            fill(rows, work(rows))

    fill(first, parts)
    run_in_threads(run, others, count_threads() if is_numpy_array(like) else 1)
    return whole


def _keep_freed_memory(like: Array) -> None:
    """Frees one large array: until it has seen that, glibc returns every freed array to the system.

    Each operation of a block would then page its temporaries in anew.
    """
    if is_inspectable(like):
        namespace(like).empty(limits.LARGE_FREED_ENTRIES)


def has_several_blocks(like: Array) -> bool:
    """Whether the rows of `like` [N, T] are computed in more than one block."""
    return like.shape[0] > _rows_per_block(like) and is_writable(like)


def _rows_per_block(like: Array) -> int:
    on_cpu = is_inspectable(like)
    entries = limits.CPU_ROW_BLOCK_ENTRIES if on_cpu else limits.ACCELERATOR_ROW_BLOCK_ENTRIES
    return max(1, entries // like.shape[1])


def _empty_like_part(part: Array, count: int) -> Array:
    return namespace(part).empty((count, *part.shape[1:]), dtype=part.dtype, device=device(part))
