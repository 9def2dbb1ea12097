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
    """Of weights that are 0 outside the mask; ESS / T = (sum w)^2 / (T sum w^2), averaged over responses."""
    xp = namespace(weights)
    lengths = tokens.length(mask, weights.dtype)[:, 0]
    sums, squares = xp.sum(weights, axis=-1), xp.sum(weights * weights, axis=-1)
    count = xp.clip(xp.sum(lengths), min=1.0)
    apart = xp.where(mask, weights - xp.sum(sums) / count, 0.0)
    fraction = sums * sums / xp.where(squares == 0.0, 1.0, lengths * squares)
    return {
        "weight_min": tokens.extreme(weights, mask, largest=False),
        "weight_max": tokens.extreme(weights, mask, largest=True),
        "weight_std": xp.sqrt(xp.sum(apart * apart) / count),
        "effective_token_fraction": tokens.mean(fraction, squares != 0.0),
    }
