"""The advantage relative to the response's group, from which many estimators start."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.estimators.base import Estimator
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class GroupRelative(Estimator):
    """Base class of the estimators that start from GRPO's advantage.

    A_i = (r_i - mean_group(r)) / (std_group(r) + eps)
    """

    scale_invariant: ClassVar[bool] = True

    correction: Literal[0, 1] = 1
    """1 for the sample's standard deviation, as frameworks have it; 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviation, in the unit of the rewards."""

    def advantages(self, rollouts: Rollouts) -> Array:
        return groups.standardize(
            require_single_reward(self.name, rollouts),
            rollouts.groups,
            rollouts.valid,
            correction=self.correction,
            eps=self.eps,
        )
