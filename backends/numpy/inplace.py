"""What a block of logits contributes to the state, computed in place on numpy arrays.

The same sums and gradient as `state.pair_state`, `state.single_state` and `gradients.grad_logits`, the
reference, which make an array per operation; tests compare them.
"""

from collections.abc import Callable, Iterator, Sequence
from math import log2
from typing import Any, NamedTuple

import numpy as np

from credit.backends import limits
from credit.backends.vocab import by_name, state

Array = Any

WIDEST_VECTOR = 16  # float32 numbers of 512 bits


class Exponential(NamedTuple):
    """exp(half t) as base^(half factor t), in the base that is computed by vectors on this machine.

    The function gets whole buffers, whose rows fill vectors: what is left at an end may be rounded otherwise,
    and where blocks end depends on the threads.
    """

    function: Callable[..., Array]
    factor: float


def padded_width(columns: int) -> int:
    """Entries of a buffer for a row of so many columns."""
    stretch = limits.NUMPY_DOT_ENTRIES if columns >= limits.NUMPY_DOT_ENTRIES else WIDEST_VECTOR
    return -(-columns // stretch) * stretch


def count_buffers(also: Sequence[str]) -> int:
    """How many buffers `sum_block` works in."""
    return 4 if by_name.has_divergences(also) else 3


def sum_block(
    logits: tuple[Array, ...],
    half: Array,
    buffers: list[Array],
    exponential: Exponential,
    also: Sequence[str] = (),
) -> tuple[Array, ...]:
    """Peak, A and E of one model's logits [R, V'], and the other's peak, B, d and those of `also`.

    Results and half are [R, 1]; buffers are [R, padded(V')], their contents lost.
    """
    columns = logits[0].shape[1]
    u, w, t, *spare = buffers
    for buffer in buffers:
        buffer[:, columns:] = 0.0
    factor = half.dtype.type(exponential.factor)
    scale = half * factor
    peak, total = _sum_exponentials(logits[0], scale, t, u, exponential)
    moment = _sum_moment(logits[0], peak, scale, t, u, columns) / factor
    if len(logits) == 1:
        return peak, total, moment, *_sum_further(also, logits, (peak,), (total,), half, (u, w))
    reference_peak, reference_total = _sum_exponentials(logits[1], scale, w, w, exponential)
    w *= np.sqrt(_safe_ratio(total, reference_total))  # exactly 1 for equal inputs
    np.subtract(u, w, out=t)
    deviation = 0.5 * _safe_ratio(_dot_rows(t, t), total)
    four = peak, total, moment, reference_peak, reference_total, deviation
    peaks, totals = (peak, reference_peak), (total, reference_total)
    return *four, *_sum_further(also, logits, peaks, totals, half, (u, w, t, *spare))


def _sum_further(
    also: Sequence[str],
    logits: tuple[Array, ...],
    peaks: Sequence[Array],
    totals: Sequence[Array],
    half: Array,
    buffers: tuple[Array, ...],
) -> Iterator[Array]:
    """As `vocab.by_name.sum_part` from u and sqrt(A / B) w, which are lost; of one model from u alone."""
    names = by_name.stored(also)
    if names:
        p, q, *others = buffers
        np.multiply(p, p, out=p)
    if "sum_squares" in names:
        yield _dot_rows(p, p)
    if by_name.has_divergences(names):
        np.multiply(q, q, out=q)
        p, q, t, term = (buffer[:, : logits[0].shape[1]] for buffer in (p, q, *others))
        np.subtract(logits[1], peaks[1], out=t)
        np.subtract(logits[0], peaks[0], out=term)
        t -= term
        t *= 2.0 * half
        t += np.log(totals[0] / totals[1])
    if "kl" in names:
        yield _sum_divergence(p, q, t, term) / totals[0]
    if "reverse_kl" in names:
        np.negative(t, out=t)
        yield _sum_divergence(q, p, t, term) / totals[0]


def write_grad_logits(
    x: Array,
    half: Array,
    residuals: Array,
    grad_output: Array,
    hit: tuple[Array, Array],
    out: Array,
    buffers: Sequence[Array],
    exponential: Exponential,
) -> None:
    """The gradient of log p and H in logits x [R, V'] into `out`: `gradients.grad_logits` in place.

    half is [R, 1], the residuals [3, R, 1] are peak, ln A and H, grad_output [2, R, 1] the gradients in
    log p and H, and `hit` the rows and columns of the ids that lie in this block. The contents of the
    buffers [R, padded(V')] are lost. What is the same for a row is multiplied before it meets the row.
    """
    (peak, log_total, entropy), (grad_log_prob, grad_entropy) = residuals, grad_output
    factor, columns = half.dtype.type(exponential.factor), x.shape[1]
    t, u = buffers
    np.subtract(x, peak, out=t[:, :columns])
    t[:, columns:] = 0.0
    t *= 2.0 * half * factor
    exponential.function(t, out=u)
    t, u = t[:, :columns], u[:, :columns]
    share = -2.0 * half * np.exp(-log_total)  # u times it is -p / T
    if np.any(grad_entropy):
        np.maximum(t, 2.0 * state.FLOOR * factor, out=t)  # p ln p is 0 where p is
        t *= share * grad_entropy / factor
        t += share * (grad_log_prob + grad_entropy * (entropy - log_total))
        np.multiply(u, t, out=out)
    else:
        np.multiply(u, share * grad_log_prob, out=out)
    out[hit] += (2.0 * half * grad_log_prob)[hit[0], 0]


def _sum_exponentials(
    logits: Array, scale: Array, exponents: Array, out: Array, exponential: Exponential
) -> tuple[Array, Array]:
    peak = np.maximum.reduce(logits, axis=1, keepdims=True)
    np.maximum(peak, np.finfo(peak.dtype).min, out=peak)  # a part of -inf only; NaN stays
    columns = logits.shape[1]
    np.subtract(logits, peak, out=exponents[:, :columns])  # subtract first: scaling first rounds above 0
    exponents *= scale
    exponential.function(exponents, out=out)
    out[:, columns:] = 0.0
    return peak, _dot_rows(out, out)


def _sum_moment(logits: Array, peak: Array, scale: Array, t: Array, u: Array, columns: int) -> Array:
    """sum u^2 t; clamped as in `vocab/state.py` only where a product 0 * -inf shows, since that is rare."""
    np.multiply(t, u, out=t)
    moment = _dot_rows(t, u)
    if np.isnan(moment).any():
        exponents = t[:, :columns]
        np.subtract(logits, peak, out=exponents)
        exponents *= scale
        np.maximum(exponents, 2 * state.FLOOR, out=exponents)
        np.multiply(t, u, out=t)
        moment = _dot_rows(t, u)
    return moment


def _sum_divergence(p: Array, q: Array, t: Array, term: Array) -> Array:
    """The sum of `vocab.by_name.divergence`; expm1(t) - t is as exact as t itself, which is a difference."""
    np.expm1(t, out=term)
    term -= t
    term *= p
    far, none = t > 1.0, p == 0.0
    if far.any():
        direct = p * t
        np.subtract(q, direct, out=direct)
        direct -= p
        np.copyto(term, direct, where=far)
    if none.any():
        np.copyto(term, q, where=none)
    return term.sum(axis=1, keepdims=True)


def _dot_rows(a: Array, b: Array) -> Array:
    """Sums of products along rows [R, 1], in stretches."""
    rows, columns = a.shape
    stretch = min(columns, limits.NUMPY_DOT_ENTRIES)
    a, b = (array.reshape(rows, columns // stretch, stretch) for array in (a, b))
    return np.add.reduce(np.matmul(a[:, :, None, :], b[:, :, :, None])[..., 0, 0], axis=1, keepdims=True)


def _safe_ratio(a: Array, b: Array) -> Array:
    return np.where(b > 0.0, a / b, a.dtype.type(0))


def choose_exponential(dtype: Any) -> Exponential:
    """exp2 where numpy has it in 512-bit vectors, twice as fast as exp; elsewhere it is not vectorised."""
    kind = np.dtype(dtype).char * 2
    try:
        current = np.lib.introspect.opt_func_info(func_name="^exp2$")["exp2"][kind]["current"]
    except (AttributeError, KeyError):  # numpy before 2.1, or without the choice
        return Exponential(np.exp, 1.0)
    wide = "AVX512" in current or "X86_V4" in current
    return Exponential(np.exp2, log2(np.e)) if wide else Exponential(np.exp, 1.0)
