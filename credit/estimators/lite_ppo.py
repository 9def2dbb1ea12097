"""The group's mean as baseline and the batch's standard deviation as scale."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class LitePPO(Estimator):
    """Lite PPO: the group's mean as baseline, the whole batch's standard deviation as scale.

        A_i = (r_i - mean_group(r)) / (std_batch(r) + eps)

    A group of one response gets 0. Source: arXiv 2508.08221.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards, groups = np.array([2.0, 0.0, 2.0, 0.0]), np.array([0, 0, 1, 1])
        >>> rollouts = credit.Rollouts(rewards, groups, np.ones((4, 1), bool))
        >>> credit.LitePPO(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[1.0], [-1.0], [1.0], [-1.0]]
    """

    shift_invariant: ClassVar[bool] = False  # shifting one group changes the batch's standard deviation
    scale_invariant: ClassVar[bool] = True
    blockwise: ClassVar[bool] = True
    name: Literal["lite_ppo"] = "lite_ppo"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""
    correction: Literal[0, 1] = 1
    """1 for the sample's standard deviation, 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviation, in the unit of the rewards."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, valid = require_single_reward(self.name, rollouts), rollouts.valid
        xp = namespace(rewards)
        batch = xp.zeros_like(rollouts.groups)
        deviation = groups.std(rewards, batch, valid, correction=self.correction)
        return groups.divide_or_keep(groups.center(rewards, rollouts.groups, valid), deviation + self.eps)
