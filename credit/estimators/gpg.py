"""The centered reward, scaled up by the share of responses that earned nothing."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class GPG(Estimator):
    """Group Policy Gradient: the centered reward, scaled up by the share of rows that earned nothing.

        A_i = alpha (r_i - mean_group(r)) / f        alpha = N / number of non-zero rewards

    alpha counts the valid rows, as in verl. Source: arXiv 2504.02546.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards, groups = np.array([1.0, 0.0]), np.array([0, 0])
        >>> credit.GPG()(credit.Rollouts(rewards, groups, np.ones((2, 1), bool))).advantages.tolist()
        [[1.0], [-1.0]]
    """

    shift_invariant: ClassVar[bool] = False
    blockwise: ClassVar[bool] = True
    name: Literal["gpg"] = "gpg"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""
    f: Annotated[float, Field(gt=0)] = 1.0
    """Divisor of the advantages."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, valid = require_single_reward(self.name, rollouts), rollouts.valid
        xp = namespace(rewards)
        earned = xp.sum(xp.astype(valid & (rewards != 0.0), rewards.dtype))
        alpha = xp.sum(xp.astype(valid, rewards.dtype)) / xp.clip(earned, min=1.0)
        return alpha * groups.center(rewards, rollouts.groups, valid) / self.f
