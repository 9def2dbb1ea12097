"""Whole responses weighed by their mean entropy."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups, tokens
from credit.backends.arrays import namespace
from credit.estimators.entropy_shares import share_in_group
from credit.estimators.group_relative import GroupRelative
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class GRPOS(GroupRelative):
    """GRPO-S: whole responses weighed by their mean entropy, then standardised as in GRPO.

        O+ (r_i > 0):  R_i = beta_1 r_i + beta_2 n H_i / sum_{k in O+} H_k
        O- (else):     R_i = -beta_1 - beta_2 m H_i^{-1} / sum_{k in O-} H_k^{-1}
        A_i = (R_i - mean_group(R)) / (std_group(R) + eps)

    H_i is the mean entropy of response i's tokens, n and m count O+ and O- in its group. Among successes
    the uncertain gain most, among failures the sure lose most; a response without tokens gets no share.
    Loss: as GRPO's (the paper's ratio, the mean of a response's token ratios, is none of PolicyLoss's).
    Source: arXiv 2508.04349, eq. 8-9, as public reimplementations state them.
    """

    shift_invariant: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["grpo_s"] = "grpo_s"
    beta_1: Annotated[float, Field(ge=0)] = 1.0
    beta_2: Annotated[float, Field(ge=0)] = 0.1
    least: Annotated[float, Field(gt=0)] = 1e-6
    """The least mean of the normalised entropy, so that its inverse is finite."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy",)

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self.name, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        lengths = tokens.length(rollouts.mask, rewards.dtype)[:, 0]
        sums = xp.sum(rollouts.normalized_entropy, axis=-1)
        entropy = xp.clip(sums / xp.clip(lengths, min=1.0), min=self.least)
        lost = valid & xp.isnan(entropy)  # as a row whose reward is lost, but loudly
        valid = valid & ~lost
        positive, written = rewards > 0.0, valid & (lengths > 0.0)
        base = self.beta_1 * xp.where(positive, rewards, -1.0)
        gain = share_in_group(entropy, written & positive, ids)
        loss = share_in_group(1.0 / entropy, written & ~positive, ids)
        # The base less its mean first: a constant that standardizing takes out, of a size at which
        # float32 loses the shares.
        shaped = groups.center(base, ids, valid) + self.beta_2 * (gain - loss)
        result = groups.standardize(shaped, ids, valid, correction=self.correction, eps=self.eps)
        return xp.where(lost, float("nan"), result)
