"""From a score per token to weights that average 1 over a response; part of `credit.tokens`."""

from collections.abc import Callable
from typing import Any

from credit.backends.arrays import as_type, group_max, group_sum, is_in_range, make_masker, namespace
from credit.types import Array


def redistribute(score: Array, mask: Array, tau: Any, turns: Array | None = None) -> Array:
    """Softmax of the scores over each response, times the number of its tokens: weights that average 1.

        w_t = T exp(s_t / tau) / sum_j exp(s_j / tau)        (j over the T tokens of the mask)

    With `turns`, the sum and T are those of the token's own turn, so that each turn keeps its credit.

    Args:
        score: s [N, T], float. Values outside the mask are not read.
        mask: [N, T], bool.
        tau: temperature in the unit of the score, above 0: a number, or an array that broadcasts to [N, T].
        turns: [N, T], integers in 0..T-1. Default: a response is one turn.

    Returns:
        w [N, T], of the score's dtype; 0 outside the mask, and exactly 1 where all scores are equal. A NaN
        score makes the weights of its own response (or turn) NaN.

    Source: DGPO, arXiv 2605.03327.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> score, mask = np.array([[0.2, 0.1, 0.9]]), np.array([[True, True, False]])
        >>> tokens.redistribute(score, mask, tau=0.1).round(3).tolist()
        [[1.462, 0.538, 0.0]]
    """
    inside, total, peak = make_reducers(mask, turns)
    top = peak(score)
    return inside(_softmax_weights((inside(score, top) - top) / tau, mask, total))


def redistribute_to_fraction(
    score: Array,
    mask: Array,
    fraction: Any,
    *,
    tau_min: float,
    floor: Array | float,
    turns: Array | None = None,
) -> Array:
    """As `redistribute`, with the tau at which a given fraction of the tokens is effective.

        (sum_t w_t)^2 / (T sum_t w_t^2) = fraction        (for each response, or each turn)

    The left side falls as 1 / tau grows, from 1 to k / T where k tokens share the highest score. A bisection
    of 24 steps in ln(1 / tau) finds tau to a relative error of 2e-6.

    Args:
        score: s [N, T], float. Values outside the mask are not read.
        mask: [N, T], bool.
        fraction: the target in (0, 1): a number, or an array that broadcasts to [N, 1].
        tau_min: the smallest tau that the bisection may choose, in the unit of the score.
        floor: a number or an array [N, 1], in the unit of the score. A response whose scores spread by no
            more than that is taken for noise and keeps weights of 1.
        turns: [N, T], integers in 0..T-1. Default: a response is one turn.

    Returns:
        w [N, T], of the score's dtype; 0 outside the mask.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> score, mask = np.array([[0.3, 0.2, 0.1, 0.0]]), np.ones((1, 4), bool)
        >>> w = tokens.redistribute_to_fraction(score, mask, 0.5, tau_min=1e-3, floor=0.0)
        >>> w.round(2).tolist(), round(float(w.sum() ** 2 / (4 * (w**2).sum())), 4)
        ([[2.65, 0.92, 0.32, 0.11]], 0.5)
    """
    xp = namespace(score)
    inside, total, peak = make_reducers(mask, turns)
    top, bottom = peak(score), -peak(-score)
    spread = top - bottom
    smallest = xp.maximum(4.0 * xp.finfo(score.dtype).eps * xp.abs(top), xp.zeros_like(top) + floor)
    count = total(xp.ones_like(score))
    flat = (spread <= smallest) | (count < 2.0)
    safe = xp.where(flat, 1.0, spread)
    z = (inside(score, top) - top) / safe
    # By Kantorovich's inequality the fraction at this temperature is at least the target.
    low = xp.log(2.0 * xp.acosh(1.0 / xp.sqrt(xp.zeros_like(safe) + fraction)))
    high = xp.log(xp.clip(safe / tau_min, max=1e9))
    low = xp.where(low < high, low, high)
    for _ in range(24):
        middle = 0.5 * (low + high)
        e = xp.exp(xp.exp(middle) * z)
        sums = total(e)
        loose = sums * sums > fraction * count * total(e * e)
        low, high = xp.where(loose, middle, low), xp.where(loose, high, middle)
    weights = _softmax_weights(xp.exp(0.5 * (low + high)) * z, mask, total)
    return xp.where(flat, as_type(mask, score.dtype), inside(weights))


def _softmax_weights(exponent: Array, mask: Array, total: Callable[[Array], Array]) -> Array:
    """e (T / sum e): in this order equal scores give exactly 1."""
    xp = namespace(exponent)
    e = xp.exp(exponent)
    sums = total(e)  # at least 1 in a response with tokens, from its highest score
    count = total(as_type(mask, e.dtype))
    return e * (count / xp.where(sums < 1.0, 1.0, sums))


def make_reducers(mask: Array, turns: Array | None) -> tuple[Callable[..., Array], ...]:
    """Functions that mask, sum and maximize values over the tokens of each response, or of each turn.

    Args:
        mask: [N, T], bool.
        turns: [N, T], integers in 0..T-1, or None for whole responses. A turn outside that range on a token
            of the mask makes the results of that token NaN.

    Returns:
        inside(values, other=0): the values [N, T], and `other` outside the mask.
        total(values): their sum over the mask's tokens, [N, 1], or [N, T] with turns.
        peak(values): their maximum over the mask's tokens, of the same shape; 0 where there are none.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> mask, turns = np.array([[True, True, True, False]]), np.array([[0, 0, 1, 1]])
        >>> values = np.array([[1.0, 2.0, 3.0, 4.0]])
        >>> inside, total, peak = tokens.make_reducers(mask, None)
        >>> inside(values).tolist(), total(values).tolist(), peak(values).tolist()
        ([[1.0, 2.0, 3.0, 0.0]], [[6.0]], [[3.0]])
        >>> inside, total, peak = tokens.make_reducers(mask, turns)
        >>> inside(total(values)).tolist()
        [[3.0, 3.0, 3.0, 0.0]]
    """
    xp, inside = namespace(mask), make_masker(mask)
    reducers: tuple[Callable[[Array], Array], Callable[[Array], Array]]
    if turns is None:
        reducers = (
            lambda values: xp.sum(values, axis=-1, keepdims=True),
            lambda values: xp.max(values, axis=-1, keepdims=True),
        )
    else:
        rows, width = mask.shape
        first = xp.cumulative_sum(xp.ones_like(turns), axis=0) - 1
        ids = xp.where(mask, xp.where(is_in_range(turns, width), turns + width * first, -1), 0)
        flat = xp.reshape(ids, (-1,))

        def by_turn(reduce: Callable[[Array, Array], Array]) -> Callable[[Array], Array]:
            return lambda values: xp.reshape(reduce(xp.reshape(values, (-1,)), flat), (rows, width))

        reducers = by_turn(group_sum), by_turn(group_max)

    def total(values: Array) -> Array:
        return reducers[0](inside(values))

    def peak(values: Array) -> Array:
        top = reducers[1](inside(values, -float("inf")))
        return xp.where(top == -float("inf"), 0.0, top)

    return inside, total, peak
