"""Log-ratios of the policy loss, and the bounds within which the loss and its gradient are finite."""

from typing import Literal

from credit.backends.arrays import namespace
from credit.types import Array

KL = Literal["k1", "k2", "k3"]

LARGEST_LOG_RATIO = 20.0
"""In nats, that is a ratio of 4.9e8, far beyond every clip range; verl's loss has the same bound. Without
one, exp overflows at 88.7 in float32, and its gradient is NaN (0 * inf) even where a clip holds the token."""

LARGEST_LOG_PROB = 1e12
"""In nats. Only a logit that was masked, by -inf or the lowest number of its type, gives a lower log-prob.
The squares of differences within it, and their sum over a batch, are finite in float32."""


def bound_log_probs(log_probs: Array) -> Array:
    """The log-probs, at most LARGEST_LOG_PROB in size: beyond it they have no gradient. NaN stays NaN."""
    return namespace(log_probs).clip(log_probs, min=-LARGEST_LOG_PROB, max=LARGEST_LOG_PROB)


def bound_log_ratios(log_ratios: Array) -> Array:
    """The log-ratios, at most LARGEST_LOG_RATIO: beyond it they have no gradient. NaN stays NaN."""
    # Not by clip, whose gradient at the bound itself is one half on JAX.
    return namespace(log_ratios).where(log_ratios > LARGEST_LOG_RATIO, LARGEST_LOG_RATIO, log_ratios)


def estimate_kl(x: Array, kind: KL) -> Array:
    """KL(p, q) [N, T] of the sampled tokens, from x = log q - log p."""
    if kind == "k1":
        return -x
    if kind == "k2":
        return 0.5 * x * x
    x = bound_log_ratios(x)
    return namespace(x).exp(x) - x - 1.0
