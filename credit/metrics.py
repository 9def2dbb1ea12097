"""The diagnostics of a batch and of its weights, as 0-d arrays."""

from credit import groups, tokens
from credit.backends.arrays import namespace
from credit.types import Array, Rollouts


def of_groups(rollouts: Rollouts) -> dict[str, Array]:
    xp = namespace(rollouts.rewards)
    rewards, valid = rollouts.rewards, rollouts.valid
    if rewards.ndim == 2:
        rewards = xp.sum(rewards, axis=1)
    dead = ~groups.varies(rewards, rollouts.groups, valid)
    return {
        "zero_variance_groups": groups.fraction(dead, rollouts.groups, valid, rewards.dtype),
        "invalid_rows": xp.sum(xp.astype(~valid, rewards.dtype)),
    }


def of_weights(weights: Array, mask: Array) -> dict[str, Array]:
    """ESS / T = (sum w)^2 / (T sum w^2), averaged over the responses that have tokens."""
    xp = namespace(weights)
    mean = tokens.mean(weights, mask)
    lengths = tokens.length(mask, weights.dtype)[:, 0]
    inside = xp.where(mask, weights, 0.0)
    squares = xp.sum(inside * inside, axis=-1)
    sums = xp.sum(inside, axis=-1)
    fraction = sums * sums / xp.where(squares == 0.0, 1.0, lengths * squares)
    return {
        "weight_min": tokens.extreme(weights, mask, largest=False),
        "weight_max": tokens.extreme(weights, mask, largest=True),
        "weight_std": xp.sqrt(tokens.mean((weights - mean) * (weights - mean), mask)),
        "effective_token_fraction": tokens.mean(fraction, squares != 0.0),
    }
