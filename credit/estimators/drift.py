"""Whether the policy left its reference for what earns rewards: the metric drift_alignment."""

from credit.backends.arrays import as_type, namespace
from credit.log_ratios import LARGEST_LOG_RATIO, bound_log_probs
from credit.types import Array, Rollouts


def is_known(rollouts: Rollouts) -> bool:
    """Whether the log-probs of both policy and reference are given."""
    return rollouts.log_probs is not None and rollouts.reference_log_probs is not None


def sum_drift(rollouts: Rollouts) -> Array:
    """sum_t (log p - log q) of each response [N], each term at most LARGEST_LOG_RATIO in size."""
    xp = namespace(rollouts.log_probs)
    moved = bound_log_probs(rollouts.log_probs) - bound_log_probs(rollouts.reference_log_probs)
    return xp.sum(xp.clip(moved, min=-LARGEST_LOG_RATIO, max=LARGEST_LOG_RATIO), axis=-1)


def align_drift(alone: Array, drift: Array, some: Array) -> Array:
    """Mean over root mean square, over responses, of A_i sum_t (log p - log q), in [-1, 1]; 0 if all are 0.

    A policy that left its reference for what earns rewards gives what did a higher probability than the
    reference does. Tokens that only wandered add to the denominator alone.
    """
    xp = namespace(drift)
    product = xp.where(some, alone, 0.0) * drift
    largest = xp.max(xp.abs(product))
    product = product / xp.where(largest > 0.0, largest, 1.0)  # or squares of small numbers vanish
    count = xp.clip(xp.sum(as_type(some, drift.dtype)), min=1.0)
    squares = xp.sum(product * product) / count
    return xp.sum(product) / count / xp.sqrt(xp.where(squares > 0.0, squares, 1.0))
