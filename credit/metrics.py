"""The diagnostics of a batch and of its weights, as 0-d arrays."""

from credit import groups, tokens
from credit.backends.arrays import namespace
from credit.backends.rows import in_blocks
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
    lengths, sums, squares, apart = in_blocks(_of_rows, weights, mask)
    count = xp.clip(xp.sum(lengths), min=1.0)
    own = sums / xp.clip(lengths, min=1.0) - xp.sum(sums) / count
    some = squares != 0.0
    fraction = xp.where(some, sums * sums / xp.where(some, lengths * squares, 1.0), 0.0)
    responses = xp.clip(xp.sum(xp.astype(some, weights.dtype)), min=1.0)
    return {
        "weight_min": tokens.extreme(weights, mask, largest=False),
        "weight_max": tokens.extreme(weights, mask, largest=True),
        "weight_std": xp.sqrt(xp.sum(apart + lengths * own * own) / count),
        "effective_token_fraction": xp.sum(fraction) / responses,
    }


def _of_rows(weights: Array, mask: Array) -> tuple[Array, ...]:
    """Per response: its length, sum w, sum w^2, and sum (w - its mean)^2, [N] each."""
    xp = namespace(weights)
    lengths = tokens.length(mask, weights.dtype)
    sums = xp.sum(weights, axis=-1, keepdims=True)
    apart = xp.where(mask, weights - sums / xp.clip(lengths, min=1.0), 0.0)
    squares = (xp.sum(each * each, axis=-1) for each in (weights, apart))
    return lengths[:, 0], sums[:, 0], *squares
