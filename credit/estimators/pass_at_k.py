"""Credit for the best response of each group only."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.backends.arrays import group_max, group_sum, namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class PassAtK(Estimator):
    """Pass@k: only the group's best response is reinforced, by its lead over the second.

        A_i = (r_max - r_second) / (std_group(r) + eps)  for the best,  0 for the others

    Where two responses are best, and in a group of one response, all get 0.
    Source: arXiv 2503.19595.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards, groups = np.array([4.0, 0.0]), np.array([0, 0])
        >>> rollouts = credit.Rollouts(rewards, groups, np.ones((2, 1), bool))
        >>> credit.PassAtK(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[2.0], [0.0]]
    """

    scale_invariant: ClassVar[bool] = True
    blockwise: ClassVar[bool] = True
    name: Literal["pass_at_k"] = "pass_at_k"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""
    correction: Literal[0, 1] = 1
    """1 for the sample's standard deviation, 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviation, in the unit of the rewards."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self.name, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        lowest = -float("inf")
        known = xp.where(valid, rewards, lowest)
        best = valid & (known == group_max(known, ids))
        second = group_max(xp.where(best, lowest, known), ids)
        alone = group_sum(xp.astype(best, rewards.dtype), ids) == 1.0
        leads = best & alone & (second > lowest)
        lead = xp.where(leads, rewards, 0.0) - xp.where(leads, second, 0.0)
        deviation = groups.std(rewards, ids, valid, correction=self.correction)
        return groups.divide_or_keep(lead, deviation + self.eps)
