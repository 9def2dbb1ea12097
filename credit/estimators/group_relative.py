"""The advantage relative to the response's group, from which many estimators start."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.estimators.base import Estimator
from credit.types import Array, Rollouts
from credit.validation import require_single_reward


class GroupRelative(Estimator):
    """A_i = (r_i - mean_group) / (std_group + eps), shared by every estimator that starts from it."""

    scale_invariant: ClassVar[bool] = True

    correction: Literal[0, 1] = 1
    """1 for the sample deviation (as the frameworks have it), 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6

    def advantages(self, rollouts: Rollouts) -> Array:
        return groups.standardize(
            require_single_reward(self.name, rollouts),
            rollouts.groups,
            rollouts.valid,
            correction=self.correction,
            eps=self.eps,
        )
