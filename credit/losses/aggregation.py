"""How the losses of the tokens become one number."""

from typing import Literal

from credit import tokens
from credit.backends.arrays import namespace
from credit.types import Array

Aggregation = Literal["token_mean", "sequence_mean", "sequence_sum", "fixed_horizon"]


def aggregate_losses(
    losses: Array,
    mask: Array,
    aggregation: Aggregation,
    horizon: int | None,
    normalizer: Array | float | None,
) -> Array:
    """The losses [N, T] of the mask's tokens as a 0-d array; see PolicyLoss for the formulas."""
    xp = namespace(losses)
    losses = xp.where(mask, losses, 0.0)
    lengths = tokens.length(mask, losses.dtype)[:, 0]
    if aggregation == "token_mean":
        count = xp.clip(xp.sum(lengths), min=1.0) if normalizer is None else normalizer
        return xp.sum(losses) / count
    sums = xp.sum(losses, axis=-1)
    if aggregation == "sequence_mean":
        sums = sums / xp.clip(lengths, min=1.0)
    elif horizon is not None:  # fixed_horizon alone has one
        sums = sums / horizon
    if normalizer is None:
        normalizer = xp.clip(xp.sum(xp.astype(lengths > 0.0, losses.dtype)), min=1.0)
    return xp.sum(sums) / normalizer
