"""Rows taken block by block, so that what is made on the way stays in a cache, or small on a device."""

from collections.abc import Callable
from typing import Any

from array_api_compat import device

from credit.backends.arrays import inspectable, namespace, writable

Array = Any
CACHED = 2**19  # entries of a block's array on a CPU: more calls cost as much as a cache gains
BOUNDED = 2**24  # on an accelerator, where a launch costs more


def in_blocks(work: Callable[[slice], dict[str, Array]], like: Array) -> dict[str, Array]:
    """work(rows) for all rows of `like` [N, T]: arrays [N, ...] by name, of which `work` gives those rows.

    All rows at once where a program is traced, whose compiler cuts by itself, or arrays cannot be written to.
    """
    count, width = like.shape
    step = max(1, (CACHED if inspectable(like) else BOUNDED) // width)
    if step >= count or not writable(like):
        return work(slice(None))
    _keep_freed_memory(like)
    whole: dict[str, Array] = {}
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        for name, part in work(rows).items():
            if name not in whole:
                whole[name] = _empty(part, count)
            whole[name][rows] = part
    return whole


def _keep_freed_memory(like: Array) -> None:
    """Frees one larger array: glibc returns pieces to the system until it has seen such a one freed.

    A block's temporaries are otherwise paged in anew by every operation.
    """
    if inspectable(like):
        namespace(like).empty(2**22)


def _empty(part: Array, count: int) -> Array:
    return namespace(part).empty((count, *part.shape[1:]), dtype=part.dtype, device=device(part))
