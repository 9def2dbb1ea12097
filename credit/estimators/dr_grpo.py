"""GRPO without the division by the group's standard deviation."""

from typing import ClassVar, Literal

from credit import groups
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class DrGRPO(Estimator):
    """Dr. GRPO: the centered reward, without the division by the deviation, which favors easy groups.

        A_{i,t} = A_i = r_i - mean_group(r)

    A group of one response gets 0. With baseline="batch" the mean is over the responses of the batch, as in
    OpenRLHF's flash_reinforce, so that one response per prompt suffices. Source: arXiv 2503.20783.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), np.array([[1, 1], [1, 0]]))
        >>> credit.DrGRPO()(rollouts).advantages.tolist()
        [[0.5, 0.5], [-0.5, 0.0]]
    """

    blockwise: ClassVar[bool] = True
    # shift_invariant is true of the paper's baseline: that of the batch moves with one group's rewards.
    name: Literal["dr_grpo"] = "dr_grpo"
    loss: PolicyLoss = PolicyLoss(aggregation="fixed_horizon")
    """The policy loss of the paper: sum over a response's tokens divided by a constant length, `horizon`, so
    that long wrong responses are not punished less per token. To call it, set the horizon."""
    baseline: Literal["group", "batch"] = "group"
    """Whose mean is subtracted: that of the response's group, or that of all responses of the batch."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids = require_single_reward(self.name, rollouts), rollouts.groups
        if self.baseline == "batch":
            ids = namespace(ids).zeros_like(ids)
        return groups.center(rewards, ids, rollouts.valid)
