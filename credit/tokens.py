"""Statistics over the tokens of one response; what lies outside the mask takes no part."""

from credit.backends.arrays import namespace
from credit.types import Array


def length(mask: Array, dtype: object) -> Array:
    """Number of the response's tokens [N, 1], as a float."""
    xp = namespace(mask)
    return xp.sum(xp.astype(mask, dtype), axis=-1, keepdims=True)


def redistribute(score: Array, mask: Array, tau: float) -> Array:
    """w_t = T exp(s_t / tau) / sum_j exp(s_j / tau) over the mask's tokens [N, T]; the mean is 1.

    Computed as e (T / sum e), so that equal scores give exactly 1. 0 outside the mask. A NaN score
    on a token of the mask makes its own response NaN.
    """
    xp = namespace(score)
    peak = xp.max(xp.where(mask, score, -float("inf")), axis=-1, keepdims=True)
    peak = xp.where(peak == -float("inf"), 0.0, peak)  # a response without tokens
    e = xp.where(mask, xp.exp((xp.where(mask, score, peak) - peak) / tau), 0.0)
    total = xp.sum(e, axis=-1, keepdims=True)  # at least 1 where there is a token: the peak's own
    return e * (length(mask, score.dtype) / xp.clip(total, min=1.0))


def mean(values: Array, mask: Array) -> Array:
    """Mean over all the mask's tokens, 0-d; 0 where there are none."""
    xp = namespace(values)
    count = xp.sum(xp.astype(mask, values.dtype))
    return xp.sum(xp.where(mask, values, 0.0)) / xp.clip(count, min=1.0)


def extreme(values: Array, mask: Array, *, largest: bool) -> Array:
    """Largest or smallest value on the mask's tokens, 0-d; 0 where there are none."""
    xp = namespace(values)
    sign = 1.0 if largest else -1.0
    peak = xp.max(xp.where(mask, sign * values, -float("inf")))
    return xp.where(peak == -float("inf"), 0.0, sign * peak)
