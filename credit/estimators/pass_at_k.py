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

    A tie at the top gives 0, and so does a group of one. Loss: token mean. Source: arXiv 2503.19595.
    """

    scale_invariant: ClassVar[bool] = True
    blockwise: ClassVar[bool] = True
    name: Literal["pass_at_k"] = "pass_at_k"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Field(ge=0)] = 1e-6

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
