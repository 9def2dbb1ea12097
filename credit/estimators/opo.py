"""The group's mean reward, weighted by response length, as baseline."""

from typing import ClassVar, Literal

from credit import groups
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class OPO(Estimator):
    """On-Policy RL with Optimal reward baseline: the group's mean weighted by response length.

        A_i = r_i - sum_j l_j r_j / sum_j l_j        l_j = number of tokens of response j

    A response without tokens has no weight, and a group of one response gets 0.
    Source: arXiv 2505.23585.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> mask = np.array([[1, 1, 1], [1, 0, 0]])
        >>> rollouts = credit.Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), mask)
        >>> credit.OPO()(rollouts).advantages.tolist()
        [[0.25, 0.25, 0.25], [-0.75, 0.0, 0.0]]
    """

    blockwise: ClassVar[bool] = True
    name: Literal["opo"] = "opo"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens, since the baseline is the optimal one for a sum
    over tokens."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self.name, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        lengths = xp.sum(xp.astype(rollouts.mask, rewards.dtype), axis=-1)
        centered = groups.center(rewards, ids, valid, lengths)
        return xp.where(groups.size(valid, ids, rewards.dtype) < 2.0, 0.0, centered)
