"""REINFORCE with a leave-one-out baseline."""

from typing import ClassVar, Literal

from credit import groups
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class RLOO(Estimator):
    """REINFORCE Leave-One-Out: the reward less the mean of the group's other responses.

        A_{i,t} = A_i = r_i - 1 / (G - 1) sum_{j != i} r_j

    A group of one gives 0. Loss: the paper treats a response as one action, hence the sum over its
    tokens; the clip of 0.2 is inactive on the first step. Source: arXiv 2402.14740.
    """

    blockwise: ClassVar[bool] = True
    name: Literal["rloo"] = "rloo"
    loss: PolicyLoss = PolicyLoss(aggregation="sequence_sum")

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards = require_single_reward(self.name, rollouts)
        return groups.leave_one_out(rewards, rollouts.groups, rollouts.valid)
