"""Tiles of the vocabulary, read from logits or multiplied from hidden states, and rows cut to size."""

from collections.abc import Callable
from numbers import Real
from typing import Any

from credit.backends.arrays import namespace
from credit.backends.vocab.sources import Logits, Source

Array = Any
UNREAD = -(2**31)  # the id of masked tokens, whose logits need not be read
Tile = Callable[[Any, int], Array]  # (start, width) -> logits [..., width] in the computing dtype


def computing_dtype(*arrays: Array) -> Any:
    """float64 if everything is, else float32."""
    xp = namespace(*arrays)
    return xp.float64 if all(a.dtype == xp.float64 for a in arrays) else xp.float32


def half_inverse_temperature(temperature: Array | float, like: Array, dtype: Any) -> Array:
    """1 / 2T for every token of `like`, as an array [...]."""
    xp = namespace(like)
    if isinstance(temperature, Real):
        return xp.full_like(like, 0.5 / float(temperature), dtype=dtype)
    return xp.broadcast_to(0.5 / xp.astype(temperature, dtype), like.shape)


def slice_entries(array: Array, start: int, width: int, axis: int) -> Array:
    """`width` entries from `start` on along the first or last axis: a view where the library has views."""
    part = slice(start, start + width)
    return array[part, ...] if axis == 0 else array[..., part]


def from_logits(logits: Array, dtype: Any, take: Callable[..., Array] = slice_entries) -> Tile:
    """Tiles of given logits [..., V]."""
    xp = namespace(logits)
    return lambda start, width: xp.astype(take(logits, start, width, -1), dtype, copy=False)


def project(hidden: Array, head: Array, dtype: Any) -> Array:
    """hidden [..., D] times head [W, D], with products and sums in `dtype`."""
    xp = namespace(hidden, head)
    hidden, head = (xp.astype(array, dtype, copy=False) for array in (hidden, head))
    return xp.matmul(hidden, xp.matrix_transpose(head))


def from_hidden(
    hidden: Array,
    head: Array,
    bias: Array | None,
    scale: float,
    soft_cap: float | None,
    dtype: Any,
    take: Callable[..., Array] = slice_entries,
    project: Callable[..., Array] = project,
) -> Tile:
    """Tiles of cap(scale (hidden head^T + bias)), the logits of an lm_head that are never held whole."""
    xp = namespace(hidden, head)

    def tile(start: Any, width: int) -> Array:
        logits = project(hidden, take(head, start, width, 0), dtype)
        if bias is not None:
            logits = logits + xp.broadcast_to(xp.astype(take(bias, start, width, 0), dtype), logits.shape)
        if scale != 1.0:
            logits = logits * scale
        return logits if soft_cap is None else soft_cap * xp.tanh(logits / soft_cap)

    return tile


def from_source(
    source: Source,
    dtype: Any,
    take: Callable[..., Array] = slice_entries,
    project: Callable[..., Array] = project,
) -> Tile:
    """Tiles of logits that are given, or that a linear head makes."""
    if isinstance(source, Logits):
        return from_logits(source.logits, dtype, take)
    return from_hidden(*source, dtype=dtype, take=take, project=project)


def map_rows(
    function: Callable[..., tuple[Array, ...]], arrays: tuple[Array, ...], ndim: int, limit: int
) -> tuple[Array, ...]:
    """Calls `function` on at most `limit` rows at a time and joins its results.

    The first `ndim` axes of every array are rows. They are cut by slicing alone, so that strided
    rows such as logits[:, :-1] are not copied.
    """
    shape = arrays[0].shape[:ndim]
    rows = 1
    for length in shape:
        rows *= length
    if rows <= limit:
        return function(*arrays)
    if shape[0] == 1:
        parts = map_rows(function, tuple(a[0, ...] for a in arrays), ndim - 1, limit)
        return tuple(part[None, ...] for part in parts)
    step = max(1, limit * shape[0] // rows)
    cuts = [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
    results = [map_rows(function, tuple(a[cut, ...] for a in arrays), ndim, limit) for cut in cuts]
    xp = namespace(*arrays)
    return tuple(xp.concat(parts, axis=0) for parts in zip(*results, strict=True))
