"""The centered reward over the group's mean."""

from typing import ClassVar, Literal

from credit import groups
from credit.backends.arrays import group_sum, namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class MaxRL(Estimator):
    """Maximum-likelihood RL: the centered reward over the group's mean.

        A_i = (r_i - mean_group(r)) / mean_group(r)        0 where the mean is not positive

    With rewards of 0 and 1, rare successes weigh more than in GRPO. Source: arXiv 2602.02710.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards, groups = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0, 0, 0, 0])
        >>> credit.MaxRL()(credit.Rollouts(rewards, groups, np.ones((4, 1), bool))).advantages.tolist()
        [[3.0], [-1.0], [-1.0], [-1.0]]
    """

    shift_invariant: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = True
    blockwise: ClassVar[bool] = True
    name: Literal["max_rl"] = "max_rl"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self.name, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        count = xp.clip(groups.size(valid, ids, rewards.dtype), min=1.0)
        mean = group_sum(xp.where(valid, rewards, 0.0), ids) / count
        centered = groups.center(rewards, ids, valid)
        return xp.where(mean > 0.0, centered / xp.where(mean > 0.0, mean, 1.0), 0.0)
