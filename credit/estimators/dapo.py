"""GRPO's advantage with DAPO's loss and its filter of groups."""

from typing import ClassVar, Literal

from credit import groups
from credit.estimators.group_relative import GroupRelative
from credit.estimators.prepare import prepare_rows
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class DAPO(GroupRelative):
    """Decoupled clip and dynamic sampling: GRPO's advantage with DAPO's loss and its filter of groups.

        A_{i,t} = A_i = (r_i - mean_group(r)) / (std_group(r) + eps)
        keep_i  = max_group(r) > min_group(r)

    `loss` clips to [1 - 0.2, 1 + 0.28] and takes one mean over all tokens; `keep` marks the groups that
    carry a signal; `credit.overlong_penalty` shapes the rewards. Each can be used independently.
    Source: arXiv 2503.14476.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards, groups = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])
        >>> credit.DAPO().keep(credit.Rollouts(rewards, groups, np.ones((4, 3), bool))).tolist()
        [True, True, False, False]
    """

    blockwise: ClassVar[bool] = True
    name: Literal["dapo"] = "dapo"
    loss: PolicyLoss = PolicyLoss(clip_high=0.28, aggregation="token_mean")
    """The policy loss of the paper: clip to [0.8, 1.28], mean over all tokens of the batch."""

    def keep(self, rollouts: Rollouts) -> Array:
        """True [N] for rows of a group in which some reward varies over its valid rows."""
        rollouts = prepare_rows(self.name, rollouts, ())
        rewards, ids, valid = rollouts.rewards, rollouts.groups, rollouts.valid
        if rewards.ndim == 1:
            return groups.varies(rewards, ids, valid)
        result = groups.varies(rewards[:, 0], ids, valid)
        for column in range(1, rewards.shape[1]):
            result = result | groups.varies(rewards[:, column], ids, valid)
        return result
