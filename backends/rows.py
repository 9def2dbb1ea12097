"""Work on rows that do not depend on each other: on a CPU in blocks that stay in a cache."""

from collections.abc import Callable
from typing import Any

from array_api_compat import is_numpy_array, is_torch_array

from credit.backends.arrays import inspectable, namespace

Array = Any

BLOCK = 2**18  # entries; temporaries of this size are taken from the heap again, larger ones faulted in anew


def in_blocks(function: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """function(*arrays), whose results [N, ...] follow row by row from its arguments [N, ...].

    Eager numpy arrays and CPU tensors are taken a few rows at a time; everything else as it is, for
    compilers fuse by themselves, and accelerators have no cache to stay in.
    """
    widest = max(arrays, key=lambda array: array.ndim)
    rows = widest.shape[0]
    entries = 1
    for length in widest.shape:
        entries *= length
    if widest.ndim < 2 or entries <= 2 * BLOCK or not _eager_on_cpu(widest):
        return function(*arrays)
    step = max(1, BLOCK * rows // entries)
    results: list[Array] = []
    for start in range(0, rows, step):
        part = slice(start, start + step)
        found = function(*(array[part, ...] for array in arrays))
        if not results:
            xp = namespace(widest)
            results = [xp.empty((rows, *each.shape[1:]), dtype=each.dtype) for each in found]
        for whole, each in zip(results, found, strict=True):
            whole[part, ...] = each
    return tuple(results)


def _eager_on_cpu(array: Array) -> bool:
    return is_numpy_array(array) or (is_torch_array(array) and inspectable(array))
