"""GRPO's advantage with DAPO's loss and its filter of groups."""

from functools import reduce
from operator import or_
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.estimators.group_relative import GroupRelative
from credit.estimators.prepare import prepare_rows
from credit.loss import PolicyLoss
from credit.several_rewards import split_functions, sum_given
from credit.types import Array, Rollouts


class DAPO(GroupRelative):
    """Decoupled clip and dynamic sampling: GRPO's advantage with DAPO's loss and its filter of groups.

        A_{i,t} = A_i = (r_i - mean_group(r)) / (std_group(r) + eps)
        keep_i  = max_group(r) > min_group(r)

    `loss` clips to [1 - 0.2, 1 + 0.28] and takes one mean over all tokens; `keep` marks the groups that
    carry a signal, also of rewards [N, K], where advantages take one reward per response;
    `credit.overlong_penalty` shapes the rewards. Each can be used independently.
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
    filter_by: Annotated[int, Field(ge=0)] | Literal["any", "total"] = "any"
    """Which of the K rewards [N, K] of a response decides in `keep`: the k-th alone (from 0), so that groups
    that vary only in a format score are left out; the `total`, their sum; or `any` of them. A reward that is
    NaN, where another is given, does not count."""

    def keep(self, rollouts: Rollouts) -> Array:
        """True [N] for rows of a group in which the reward that decides varies over its valid rows.

        Raises:
            ValueError: there are not as many rewards as `filter_by` counts; or as when calling it.
        """
        rollouts = prepare_rows(self.name, rollouts, ())
        ids, valid = rollouts.groups, rollouts.valid
        if self.filter_by == "total":
            return groups.varies(sum_given(rollouts.rewards), ids, valid)
        functions = split_functions(rollouts.rewards, valid)
        count = len(functions)
        if self.filter_by == "any":
            return reduce(or_, [groups.varies(rewards, ids, given) for rewards, given in functions])
        if self.filter_by >= count:
            raise ValueError(
                f"{self.name} has filter_by={self.filter_by}, and the rollouts have {count} "
                f"{'reward' if count == 1 else 'rewards'} per response; expected 0..{count - 1}, or rewards "
                "[N, K]"
            )
        rewards, given = functions[self.filter_by]
        return groups.varies(rewards, ids, given)
