"""The advantage relative to the response's group, from which many estimators start."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.estimators.base import Estimator
from credit.types import Array, Rollouts
from credit.validation import require_single_reward

BASELINE_SETTINGS = ("correction", "eps", "leave_one_out")
"""Those of `GroupRelative`, which have no effect where A_i is another's, or not read."""


class GroupRelative(Estimator):
    """Base class of the estimators that start from GRPO's advantage.

    A_i = (r_i - mean_group(r)) / (std_group(r) + eps), over the group's other responses with leave_one_out
    """

    scale_invariant: ClassVar[bool] = True  # but with leave_one_out, where the others are equal

    correction: Literal[0, 1] = 1
    """1 for the sample's standard deviation, as frameworks have it; 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviation, in the unit of the rewards."""
    leave_one_out: bool = False
    """Compare a response with the mean and standard deviation of the group's others, as NeMo-RL does by
    default. Where the others are equal, or the advantage would be more than 1,000, it is r_i - mean, in the
    unit of the rewards; so it is in a group of two."""

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards = require_single_reward(self.name, rollouts)
        return self._standardize(rewards, rollouts.groups, rollouts.valid)

    def _standardize(self, rewards: Array, ids: Array, valid: Array) -> Array:
        return groups.standardize(
            rewards,
            ids,
            valid,
            correction=self.correction,
            eps=self.eps,
            leave_one_out=self.leave_one_out,
        )
