"""The reward of a greedy response as baseline."""

from typing import ClassVar, Literal

from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class ReMax(Estimator):
    """ReMax: the reward minus that of a greedy response to the same prompt.

        A_i = r_i - r_i^greedy        (Rollouts.baseline_rewards)

    It needs no groups. Source: arXiv 2310.10505.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards, greedy = np.array([1.0, 0.0]), np.array([0.25, 0.25])
        >>> rollouts = credit.Rollouts(
        ...     rewards, np.array([0, 1]), np.ones((2, 1), bool), baseline_rewards=greedy
        ... )
        >>> credit.ReMax()(rollouts).advantages.tolist()
        [[0.75], [-0.25]]
    """

    shift_invariant: ClassVar[bool] = False
    blockwise: ClassVar[bool] = True
    name: Literal["remax"] = "remax"
    loss: PolicyLoss = PolicyLoss(aggregation="sequence_sum")
    """The policy loss of the paper: sum over a response's tokens."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("baseline_rewards",)

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards = require_single_reward(self.name, rollouts)
        xp = namespace(rewards)
        return xp.where(rollouts.valid, rewards - rollouts.baseline_rewards, 0.0)
