"""REINFORCE with a leave-one-out baseline."""

from typing import ClassVar, Literal

from credit import groups
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class RLOO(Estimator):
    """REINFORCE Leave-One-Out: the reward minus the mean of the group's other responses.

        A_{i,t} = A_i = r_i - 1 / (G - 1) sum_{j != i} r_j

    A group of one response gets 0. Source: arXiv 2402.14740.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards, groups = np.array([1.0, 0.0, 0.5]), np.array([0, 0, 0])
        >>> credit.RLOO()(credit.Rollouts(rewards, groups, np.ones((3, 1), bool))).advantages.tolist()
        [[0.75], [-0.75], [0.0]]
    """

    blockwise: ClassVar[bool] = True
    name: Literal["rloo"] = "rloo"
    loss: PolicyLoss = PolicyLoss(aggregation="sequence_sum")
    """The policy loss of the paper: sum over a response's tokens, since a response is one action there; the
    clip of 0.2 is inactive on the first step."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards = require_single_reward(self.name, rollouts)
        return groups.leave_one_out(rewards, rollouts.groups, rollouts.valid)
