"""Deviation of policy and reference where the whole vocabulary is not at hand."""

from credit import validation
from credit.backends.arrays import stop_gradient
from credit.types import Array


def binary_deviation(log_probs: Array, reference_log_probs: Array) -> Array:
    """Squared Hellinger distance of "this token or another one", from the sampled log-probs alone.

        d2 = 1 - sqrt(p q) - sqrt((1 - p)(1 - q)),    p = exp(log_probs), q = exp(reference_log_probs)

    A lower bound of the deviation that `token_statistics` gives, since merging all other tokens into
    one never raises the distance; usually far below it, and it ranks tokens differently: a signal of
    its own, for pipelines that keep nothing but sampled log-probs. No gradient flows through it.

    Args:
        log_probs: log p(token) [...], nats.
        reference_log_probs: log q(token) [...].

    Returns:
        d2 [...] in [0, 1], float32 (float64 if both inputs are); exactly 0 where they are equal, and
        NaN where either is.

    Raises:
        ValueError: libraries, devices or shapes differ, or an input is not floating point.
    """
    xp = validation.check_same_library(log_probs=log_probs, reference_log_probs=reference_log_probs)
    validation.check_shape("reference_log_probs", reference_log_probs, log_probs.shape, "as log_probs")
    arrays = (stop_gradient(log_probs), stop_gradient(reference_log_probs))
    for name, array in zip(("log_probs", "reference_log_probs"), arrays, strict=True):
        if not xp.isdtype(array.dtype, "real floating"):
            raise ValueError(f"{name} is {array.dtype}; expected floating point")
    double = all(array.dtype == xp.float64 for array in arrays)
    lp, lq = (xp.clip(xp.astype(a, xp.float64 if double else xp.float32), max=0.0) for a in arrays)
    # Differences by expm1 of the gap: subtracting p and q, or their roots, would cancel.
    top = xp.where(lp > lq, lp, lq)
    same = lp == lq  # -inf - -inf would be NaN
    gap = xp.abs(xp.where(same, 0.0, lp) - xp.where(same, 0.0, lq))
    root_difference = -xp.exp(top / 2) * xp.expm1(-gap / 2)
    difference = -xp.exp(top) * xp.expm1(-gap)
    rest = xp.sqrt(-xp.expm1(lp)) + xp.sqrt(-xp.expm1(lq))
    rest_difference = difference / xp.where(rest == 0.0, 1.0, rest)
    return xp.clip((root_difference**2 + rest_difference**2) / 2, max=1.0)
