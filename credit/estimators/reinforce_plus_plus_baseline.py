"""The centered reward, whitened over the batch's tokens."""

from typing import ClassVar, Literal

from credit import groups
from credit.backends.arrays import namespace
from credit.estimators.whitening import Whitening
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class ReinforcePlusPlusBaseline(Whitening):
    """REINFORCE++ with a group baseline: the centered reward, whitened over the batch's tokens.

        A_{i,t} = whiten(r_i - mean_group(r)),  whiten(x) = (x - mean) / sqrt(var + 1e-8)

    With divide_by_std=False it is the centered reward minus its mean over the batch's tokens. A group of one
    response has a centered reward of 0. Source: arXiv 2501.03262.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), np.ones((2, 2), bool))
        >>> credit.ReinforcePlusPlusBaseline(whiten_correction=0)(rollouts).advantages.round(3).tolist()
        [[1.0, 1.0], [-1.0, -1.0]]
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    blockwise: ClassVar[bool] = True  # as the base of another
    name: Literal["reinforce_plus_plus_baseline"] = "reinforce_plus_plus_baseline"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""

    @property
    def is_uniform(self) -> bool:
        """All tokens of a response get one advantage."""
        return self._assigns_as(ReinforcePlusPlusBaseline)

    def advantages(self, rollouts: Rollouts) -> Array:
        return self.whiten_responses(self._centered(rollouts), rollouts.mask)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        centered, mask = self._centered(rollouts), rollouts.mask
        every = namespace(centered).where(mask, centered[:, None], 0.0)
        return self.whiten(every, mask), mask

    def _centered(self, rollouts: Rollouts) -> Array:
        rewards = require_single_reward(self.name, rollouts)
        return groups.center(rewards, rollouts.groups, rollouts.valid)
