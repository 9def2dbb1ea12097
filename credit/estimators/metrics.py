"""The diagnostics of a batch and of its weights, as 0-d arrays."""

from credit import groups, tokens
from credit.backends.arrays import as_type, make_masker, namespace
from credit.types import Array, Rollouts

MASKED_OFFSET = 1e38  # past every weight: what is outside the mask is moved there and is no extreme


def group_metrics(rollouts: Rollouts) -> dict[str, Array]:
    xp = namespace(rollouts.rewards)
    rewards, valid = rollouts.rewards, rollouts.valid
    if rewards.ndim == 2:
        rewards = xp.sum(rewards, axis=1)
    dead = ~groups.varies(rewards, rollouts.groups, valid)
    return {
        "zero_variance_groups": groups.fraction(dead, rollouts.groups, valid, rewards.dtype),
        "invalid_rows": xp.sum(xp.astype(~valid, rewards.dtype)),
    }


def row_statistics(
    weights: Array, mask: Array, observed: dict[str, Array], *, uniform: bool
) -> dict[str, Array]:
    """What `of_tokens` needs to know of each response [N], from weights and further values [N, T].

    Weights are 0 outside the mask; `uniform` ones are 1 inside, and are not looked at.
    """
    xp = namespace(weights)
    present = weights if uniform else as_type(mask, weights.dtype)
    count = xp.sum(present, axis=-1)
    beyond = 0.0 if uniform and not observed else (1.0 - present) * MASKED_OFFSET
    found = {"tokens": count, "apart": 0.0 * count, "squares": 0.0 * count}
    found |= {"weight_min": found["apart"] + 1.0, "weight_max": found["apart"] + 1.0}
    if not uniform:
        apart = weights - present  # from 1, near which squares would lose their digits
        found |= {"apart": xp.sum(apart, axis=-1), "squares": xp.sum(apart * apart, axis=-1)}
        found["weight_min"] = xp.min(weights + beyond, axis=-1)
        found["weight_max"] = xp.max(weights - beyond, axis=-1)
    inside = make_masker(mask)
    for name, values in observed.items():
        clean = inside(values)
        found |= {f"{name}_sum": xp.sum(clean, axis=-1), f"{name}_max": xp.max(clean - beyond, axis=-1)}
    return found


def weight_metrics(responses: dict[str, Array]) -> dict[str, Array]:
    """Of the weights, and mean and largest of what else was observed.

    ESS / T = (sum w)^2 / (T sum w^2) is averaged over responses whose weights are not all 0.
    """
    xp = namespace(responses["tokens"])
    lengths, apart, squares = (responses[name] for name in ("tokens", "apart", "squares"))
    count = xp.clip(xp.sum(lengths), min=1.0)
    variance = xp.sum(squares) / count - (xp.sum(apart) / count) ** 2
    sums, powers = lengths + apart, lengths + 2.0 * apart + squares
    fraction = sums * sums / xp.where(powers == 0.0, 1.0, lengths * powers)
    found = {
        "weight_std": xp.sqrt(xp.clip(variance, min=0.0)),
        "effective_token_fraction": tokens.mean(fraction, powers != 0.0),
    }
    for name, values in responses.items():
        stem, _, kind = name.rpartition("_")
        if kind == "sum":
            found[f"{stem}_mean"] = xp.sum(values) / count
        elif kind in ("min", "max"):
            found[name] = tokens.extreme(values, lengths > 0.0, largest=kind == "max")
    return found
