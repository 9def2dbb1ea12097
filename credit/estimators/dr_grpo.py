"""GRPO without the division by the group's standard deviation."""

from typing import ClassVar, Literal

from credit import groups
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class DrGRPO(Estimator):
    """Dr. GRPO: the centered reward, without the division by the deviation that favours easy groups.

        A_{i,t} = A_i = r_i - mean_group(r)

    Loss: PPO clip 0.2, sum over a response's tokens divided by a constant length (`loss.horizon`),
    so that long wrong responses are not punished less per token. Source: arXiv 2503.20783.
    """

    blockwise: ClassVar[bool] = True
    name: Literal["dr_grpo"] = "dr_grpo"
    loss: PolicyLoss = PolicyLoss(aggregation="fixed_horizon")

    def advantages(self, rollouts: Rollouts) -> Array:
        return groups.center(require_single_reward(self.name, rollouts), rollouts.groups, rollouts.valid)
