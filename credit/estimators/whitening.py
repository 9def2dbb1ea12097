"""Advantages that are whitened over the batch's tokens."""

from typing import Literal, Self

from pydantic import model_validator

from credit import tokens
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.settings import refuse_without_effect
from credit.types import Array


class Whitening(Estimator):
    """Base class of the estimators that whiten over the batch's tokens.

    whiten(x) = (x - mean) / sqrt(var + 1e-8), or x - mean with divide_by_std=False
    """

    divide_by_std: bool = True
    """False: the mean over the batch's tokens is subtracted alone, as with OpenRLHF's no_std_norm."""
    whiten_correction: Literal[0, 1] = 1
    """1 for the sample's variance, as in verl; 0 for the population's, which OpenRLHF uses."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        unscaled = None if self.divide_by_std else "with divide_by_std=False"
        refuse_without_effect(self, {"whiten_correction": unscaled})
        return self

    @property
    def ignores_group_constants(self) -> bool:
        return not self.divide_by_std

    def whiten(self, values: Array, mask: Array) -> Array:
        """`tokens.whiten` of values [N, T] by these settings."""
        return tokens.whiten(values, mask, self.whiten_correction, divide=self.divide_by_std)

    def whiten_responses(self, values: Array, mask: Array) -> Array:
        """`whiten_responses` of values [N] by these settings."""
        return whiten_responses(values, mask, self.whiten_correction, divide=self.divide_by_std)


def whiten_responses(values: Array, mask: Array, correction: int = 1, *, divide: bool = True) -> Array:
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
    if not divide:
        return centered
    unit = xp.clip(xp.max(xp.abs(centered)), min=1.0)
    centered = centered / unit
    variance = xp.sum(lengths * centered * centered) / xp.clip(count - correction, min=1.0)
    return centered / xp.sqrt(variance + (1e-4 / unit) ** 2)
