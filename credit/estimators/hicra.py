"""GRPO's advantage, raised on the tokens that plan."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit.backends.arrays import namespace
from credit.estimators.on_baseline import OnBaseline
from credit.types import Array, Rollouts


class HICRA(OnBaseline):
    """Hierarchy-Aware Credit Assignment: planning tokens gain more by a success and lose less by a failure.

        A_{i,t} = A_i + alpha |A_i| planning_{i,t},  A_i = (r_i - mean_group(r)) / (std_group(r) + eps)

    `extra.planning` says which tokens plan. In the paper these are the tokens of strategic grams, phrases of
    three to five words such as "let's try another way", which are found in the text beforehand. The authors'
    code, as it was ported to TRL, also raises tokens of high entropy in long right answers, which is left out
    here. Source: arXiv 2509.03646.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 2), bool),
        ...     extra={"planning": np.array([[True, False], [True, False]])},
        ... )
        >>> credit.HICRA(alpha=0.5, correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[1.5, 1.0], [-0.5, -1.0]]
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False  # the sign of A_i, which the group decides, turns the weights
    blockwise: ClassVar[bool] = True
    name: Literal["hicra"] = "hicra"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of |A_i| that is added on planning tokens; at most 1, so that no sign turns."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("extra.planning",)

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        xp = namespace(advantages)
        planning = xp.astype(rollouts.extra["planning"], advantages.dtype)
        return 1.0 + self.alpha * xp.sign(advantages)[:, None] * planning
