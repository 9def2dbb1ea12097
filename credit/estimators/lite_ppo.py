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
    """Lite PPO: the group's mean as baseline, the whole batch's deviation as scale.

        A_i = (r_i - mean_group(r)) / (std_batch(r) + eps)

    Loss: token mean. Source: arXiv 2508.08221.
    """

    shift_invariant: ClassVar[bool] = False  # a shift of one group changes the batch's deviation
    scale_invariant: ClassVar[bool] = True
    blockwise: ClassVar[bool] = True
    name: Literal["lite_ppo"] = "lite_ppo"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Field(ge=0)] = 1e-6

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, valid = require_single_reward(self.name, rollouts), rollouts.valid
        xp = namespace(rewards)
        batch = xp.zeros_like(rollouts.groups)
        deviation = groups.std(rewards, batch, valid, correction=self.correction)
        return groups.divide_or_keep(groups.center(rewards, rollouts.groups, valid), deviation + self.eps)
