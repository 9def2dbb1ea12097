"""The centered reward, whitened over the batch's tokens."""

from typing import ClassVar, Literal

from credit import groups, tokens
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class ReinforcePlusPlusBaseline(Estimator):
    """REINFORCE++ with a group baseline: the centered reward, whitened over the batch's tokens.

        A_{i,t} = whiten(r_i - mean_group(r)),  whiten(x) = (x - mean) / sqrt(var + 1e-8)

    Loss: token mean. Source: arXiv 2501.03262.
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    name: Literal["reinforce_plus_plus_baseline"] = "reinforce_plus_plus_baseline"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    whiten_correction: Literal[0, 1] = 1
    """1 for the sample variance, 0 for the population's (OpenRLHF)."""

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        rewards, mask = require_single_reward(self.name, rollouts), rollouts.mask
        centered = groups.center(rewards, rollouts.groups, rollouts.valid)
        every = namespace(rewards).where(mask, centered[:, None], 0.0)
        return tokens.whiten(every, mask, self.whiten_correction), mask
