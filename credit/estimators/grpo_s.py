"""Whole responses weighed by their mean entropy."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from credit import groups, tokens
from credit.backends.arrays import namespace
from credit.estimators.entropy_shares import share_in_group
from credit.estimators.group_relative import GroupRelative
from credit.settings import refuse_without_effect
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class GRPOS(GroupRelative):
    """GRPO-S: whole responses weighed by their mean entropy, then standardized as in GRPO.

        O+ (r_i > 0):  R_i = beta_1 r_i + beta_2 n H_i / sum_{k in O+} H_k
        O- (else):     R_i = -beta_1 - beta_2 m H_i^{-1} / sum_{k in O-} H_k^{-1}
        A_i = (R_i - mean_group(R)) / (std_group(R) + eps)

    H_i is the mean entropy of the tokens of response i; n and m count O+ and O- in its group. Among
    successes, uncertain responses gain the most; among failures, certain ones lose the most. A response
    without tokens gets no share. The paper's ratio, the mean of a response's token ratios, is none that
    PolicyLoss offers. Source: arXiv 2508.04349, eq. 8-9, as public reimplementations state them.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 1.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 1), bool),
        ...     normalized_entropy=np.array([[0.6], [0.2]]),
        ... )
        >>> credit.GRPOS(correction=0, eps=0.0)(rollouts).advantages.round(3).tolist()
        [[1.0], [-1.0]]
    """

    shift_invariant: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["grpo_s"] = "grpo_s"
    beta_1: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the reward."""
    beta_2: Annotated[float, Field(ge=0)] = 0.1
    """Factor on the share of the entropy."""
    least: Annotated[float, Field(gt=0)] = 1e-6
    """The least mean of the normalized entropy, so that its inverse is finite."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        refuse_without_effect(self, {"least": None if self.beta_2 else "with beta_2=0"})
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy",)

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self.name, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        lengths = tokens.length(rollouts.mask, rewards.dtype)[:, 0]
        sums = xp.sum(rollouts.normalized_entropy, axis=-1)
        entropy = xp.clip(sums / xp.clip(lengths, min=1.0), min=self.least)
        lost = valid & xp.isnan(entropy)  # these rows take no part, and get NaN so that it is seen
        valid = valid & ~lost
        positive, written = rewards > 0.0, valid & (lengths > 0.0)
        base = self.beta_1 * xp.where(positive, rewards, -1.0)
        gain = share_in_group(entropy, written & positive, ids)
        loss = share_in_group(1.0 / entropy, written & ~positive, ids)
        # Standardizing removes the mean of the base. Removing it first keeps the digits of the shares,
        # which float32 would lose beside it.
        shaped = groups.center(base, ids, valid) + self.beta_2 * (gain - loss)
        result = self._standardize(shaped, ids, valid)
        return xp.where(lost, float("nan"), result)
