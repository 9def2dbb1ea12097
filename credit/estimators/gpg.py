"""The centered reward, scaled up for the groups that give no gradient."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.backends.arrays import group_max, namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class GPG(Estimator):
    """Group Policy Gradient: the centered reward, scaled up for the groups that give no gradient.

        A_i = alpha (r_i - mean_group(r)) / f        alpha = groups / groups whose rewards differ
        alpha = N / number of non-zero rewards       (scale_by="nonzero_rewards", as verl has it)

    A group counts if it has a valid row, and a group of one valid row has no rewards that differ. Only valid
    rows count in N. Source: arXiv 2504.02546, whose authors' trainer counts the groups in this way.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards, groups = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])
        >>> credit.GPG()(credit.Rollouts(rewards, groups, np.ones((4, 1), bool))).advantages[:, 0].tolist()
        [1.0, -1.0, 0.0, 0.0]
    """

    # Shift-invariant as the paper has it; with scale_by="nonzero_rewards" it is not.
    blockwise: ClassVar[bool] = True
    name: Literal["gpg"] = "gpg"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""
    f: Annotated[float, Field(gt=0)] = 1.0
    """Divisor of the advantages."""
    scale_by: Literal["groups_with_spread", "nonzero_rewards"] = "groups_with_spread"
    """What alpha counts: the groups whose rewards differ, or, as verl does, the rewards that are not 0."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, valid = require_single_reward(self.name, rollouts), rollouts.valid
        if self.scale_by == "nonzero_rewards":
            every, teaching = valid, valid & (rewards != 0.0)
        else:
            every = _find_one_row_per_group(rollouts.groups, valid, rewards.dtype)
            teaching = every & groups.varies(rewards, rollouts.groups, valid)
        xp = namespace(rewards)
        count, useful = (xp.sum(xp.astype(flag, rewards.dtype)) for flag in (every, teaching))
        alpha = count / xp.clip(useful, min=1.0)
        return alpha * groups.center(rewards, rollouts.groups, valid) / self.f


def _find_one_row_per_group(ids: Array, valid: Array, dtype: object) -> Array:
    """True [N] for the last valid row of each group; a sum of shares would count groups with a rounding."""
    xp = namespace(valid)
    position = xp.cumulative_sum(xp.astype(valid, dtype))
    return valid & (position == group_max(xp.where(valid, position, 0.0), ids))
