"""Advantages that all tokens of a response share, whitened over the batch's tokens."""

from credit import tokens
from credit.backends.arrays import namespace
from credit.types import Array


def whiten_responses(values: Array, mask: Array, correction: int = 1) -> Array:
    """`tokens.whiten` of values [N] that all tokens of a response share, without a pass over the tokens.

    Responses without tokens get 0.
    """
    xp = namespace(values)
    lengths = tokens.length(mask, values.dtype)[:, 0]
    some, count = lengths > 0.0, xp.sum(lengths)
    centered = values
    for _ in range(2):  # twice for the reason given in groups.center
        mean = xp.sum(xp.where(some, lengths * centered, 0.0)) / xp.clip(count, min=1.0)
        centered = xp.where(some, centered - mean, 0.0)
    unit = xp.clip(xp.max(xp.abs(centered)), min=1.0)
    centered = centered / unit
    variance = xp.sum(lengths * centered * centered) / xp.clip(count - correction, min=1.0)
    return centered / xp.sqrt(variance + (1e-4 / unit) ** 2)
