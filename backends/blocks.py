"""numpy, and torch on a CPU: one pass in blocks that fit a cache, rows over threads, no arrays made inside.

What a part of the vocabulary contributes is written here a second time, since `state.pair` makes an array per
operation; how parts join and what is read off at the end is `state.py`'s.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import log2, prod
from typing import Any, NamedTuple

import numpy as np

from credit.backends import array_api, state, tiles
from credit.backends.array_api import (
    log_probs_and_entropy,
    selected_log_probs_from_hidden,
    token_statistics_from_hidden,
)

__all__ = [
    "log_probs_and_entropy",
    "selected_log_probs_from_hidden",
    "token_statistics",
    "token_statistics_from_hidden",
]

Array = Any

BLOCK = 65_536  # entries: large beside the cost of a call, small beside a core's cache
STRETCH = 512  # entries per dot product, whose sums are sequential; those of the stretches are pairwise
ALONE = 2**20  # entries up to which one thread is faster than several


class Block(NamedTuple):
    """Where a block lies: leading indices, rows of the last leading axis, columns, and its part's number."""

    lead: tuple[int, ...]
    rows: slice
    columns: slice
    part: int


class Exponential(NamedTuple):
    """exp(half t) as base^(half factor t), in the base that numpy computes by vectors on this machine."""

    function: Callable[..., Array]
    factor: float


def token_statistics(
    policy_logits: Array, reference_logits: Array, token_ids: Array, temperature: Array | float
) -> tuple[Array, Array, Array, Array]:
    """See `array_api.token_statistics`."""
    dtype = tiles.computing_dtype(policy_logits, reference_logits)
    known = (token_ids >= 0) & (token_ids < policy_logits.shape[-1])
    places = np.where(known, token_ids, 0)[..., None]
    logits = policy_logits, reference_logits
    selected = [np.where(known, np.take_along_axis(x, places, -1)[..., 0].astype(dtype), 0) for x in logits]
    half = tiles.halved(temperature, token_ids, dtype)
    return fold(logits, read, selected, token_ids, half, _cores())


def read(logits: Array, place: tuple[Any, ...], out: Array) -> Array:
    """A block in the type of `out`, as a view where that is possible."""
    block = logits[place]
    if block.dtype == out.dtype:
        return block
    np.copyto(out, block, casting="unsafe")
    return out


def fold(
    logits: tuple[Array, Array],
    read: Callable[..., Array],
    selected: list[Array],
    token_ids: Array,
    half: Array,
    threads: int,
) -> tuple[Array, Array, Array, Array]:
    """log p, log q, H and d from logits [..., V] that `read` gets by blocks, and their entries at the ids."""
    if not token_ids.ndim:
        lifted = tuple(x[None] for x in logits), read, [x[None] for x in selected]
        return tuple(x[0] for x in fold(*lifted, token_ids[None], half[None], threads))
    size = logits[0].shape[-1]
    blocks = list(_blocks(token_ids.shape, size))
    parts = -(-size // BLOCK)
    states = np.zeros((6, parts, *token_ids.shape, 1), half.dtype)
    states[:2] = np.finfo(half.dtype).min
    exponential = _exponential(half.dtype)

    def work(start: int, step: int) -> None:
        scratch = np.empty((5, BLOCK + STRETCH), half.dtype)
        with np.errstate(all="ignore"):  # of this thread
            for block in blocks[start::step]:
                ids = token_ids[(*block.lead, block.rows)]
                if not np.all(ids == tiles.UNREAD):
                    _fill(states, logits, read, half, block, scratch, exponential)

    threads = 1 if prod(token_ids.shape) * size < ALONE else max(1, min(threads, len(blocks)))
    if threads == 1:
        work(0, 1)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads), [threads] * threads))
    with np.errstate(all="ignore"):
        return array_api.read_pair(_join(states, selected, half[..., None]), half[..., None])


def _blocks(lead: tuple[int, ...], size: int) -> Iterator[Block]:
    width = min(size, BLOCK)
    step = max(1, BLOCK // (-(-width // STRETCH) * STRETCH)) if size > STRETCH else max(1, BLOCK // size)
    for index in np.ndindex(lead[:-1]):
        for row in range(0, lead[-1], step):
            rows = slice(row, min(row + step, lead[-1]))
            for part, start in enumerate(range(0, size, width)):
                yield Block(index, rows, slice(start, min(start + width, size)), part)


def _fill(
    states: Array,
    logits: tuple[Array, Array],
    read: Callable[..., Array],
    half: Array,
    block: Block,
    scratch: Array,
    exponential: Exponential,
) -> None:
    """The six sums of a block, into its part and rows of `states`."""
    rows, columns = block.rows.stop - block.rows.start, block.columns.stop - block.columns.start
    stretch = min(columns, STRETCH)
    padded = -(-columns // stretch) * stretch
    u, w, t, *wide = (buffer[: rows * padded].reshape(rows, padded) for buffer in scratch)
    for buffer in (u, w, t):
        buffer[:, columns:] = 0.0
    place = (*block.lead, block.rows, block.columns)
    x, y = (read(side, place, out[:, :columns]) for side, out in zip(logits, wide, strict=True))
    scale = half[(*block.lead, block.rows)][:, None] * half.dtype.type(exponential.factor)
    peak, total = _exponentials(x, scale, t[:, :columns], u, exponential)
    moment = _moment(x, peak, scale, t, u, columns) / half.dtype.type(exponential.factor)
    reference_peak, reference_total = _exponentials(y, scale, w[:, :columns], w, exponential)
    w *= np.sqrt(_ratio(total, reference_total))  # exactly 1 for equal inputs
    np.subtract(u, w, out=u)
    deviation = 0.5 * _ratio(_dot(u, u), total)
    sums = peak, reference_peak, total, reference_total, moment, deviation
    for field, value in zip(states, sums, strict=True):
        field[(block.part, *block.lead, block.rows)] = value


def _exponentials(
    logits: Array, scale: Array, exponents: Array, out: Array, exponential: Exponential
) -> tuple[Array, Array]:
    peak = np.max(logits, axis=1, keepdims=True)
    np.maximum(peak, np.finfo(peak.dtype).min, out=peak)  # a part of -inf only; NaN stays
    np.subtract(logits, peak, out=exponents)  # subtract first: scaling first rounds above 0
    exponents *= scale
    exponential.function(exponents, out=out[:, : exponents.shape[1]])
    return peak, _dot(out, out)


def _moment(logits: Array, peak: Array, scale: Array, t: Array, u: Array, columns: int) -> Array:
    """sum u^2 t; clamped as in `state.py` only where a product 0 * -inf shows, since that is rare."""
    np.multiply(t, u, out=t)
    moment = _dot(t, u)
    if np.isnan(moment).any():
        exponents = t[:, :columns]
        np.subtract(logits, peak, out=exponents)
        exponents *= scale
        np.maximum(exponents, 2 * state.FLOOR, out=exponents)
        np.multiply(t, u, out=t)
        moment = _dot(t, u)
    return moment


def _dot(a: Array, b: Array) -> Array:
    """Sums of products along rows [R, 1], in stretches."""
    rows, columns = a.shape
    stretch = min(columns, STRETCH)
    a, b = (array.reshape(rows, columns // stretch, stretch) for array in (a, b))
    return np.matmul(a[:, :, None, :], b[:, :, :, None])[..., 0, 0].sum(axis=1, keepdims=True)


def _ratio(a: Array, b: Array) -> Array:
    return np.where(b > 0.0, a / b, a.dtype.type(0))


def _join(states: Array, selected: list[Array], half: Array) -> state.Pair:
    """The parts' states, joined by pairs."""
    pairs = []
    for part in range(states.shape[1]):
        peak, reference_peak, total, reference_total, moment, deviation = states[:, part]
        x, y = (array[..., None] if part == 0 else np.zeros_like(peak) for array in selected)
        policy, reference = state.Mass(peak, total, x), state.Mass(reference_peak, reference_total, y)
        pairs.append(state.Pair(policy, moment, reference, deviation))
    while len(pairs) > 1:
        merged = [state.merge_pair(a, b, half) for a, b in zip(pairs[::2], pairs[1::2], strict=False)]
        pairs = merged + pairs[2 * len(merged) :]
    return pairs[0]


def _exponential(dtype: Any) -> Exponential:
    """exp2 where numpy has it in 512-bit vectors, twice as fast as exp; elsewhere it is not vectorised."""
    kind = np.dtype(dtype).char * 2
    try:
        current = np.lib.introspect.opt_func_info(func_name="^exp2$")["exp2"][kind]["current"]
    except (AttributeError, KeyError):  # numpy before 2.1, or without the choice
        return Exponential(np.exp, 1.0)
    wide = "AVX512" in current or "X86_V4" in current
    return Exponential(np.exp2, log2(np.e)) if wide else Exponential(np.exp, 1.0)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
