"""The optimal token baseline of responses that tools interrupt."""

from typing import Literal

from credit.backends.arrays import namespace
from credit.estimators.optimal_baseline import OptimalBaseline
from credit.types import Array


class TIROTB(OptimalBaseline):
    """Optimal Token Baseline for tool-integrated reasoning: as `otb`, between tokens of equal number.

        A_{i,t} = G_{i,t} - B_t,  B_t = sum_i W_{i,t} G_{i,t} / sum_i W_{i,t}    t counts tokens of the mask

    G and W are those of `otb`, to which it is equal where the mask has no holes. What tools return takes no
    part, so that it does not matter how long it is. Source: arXiv 2602.07078.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.array([[True, False, True], [True, True, False]]),
        ...     log_probs=np.log(np.full((2, 3), 0.5)),
        ...     extra={"sum_squares": np.full((2, 3), 0.5)},
        ... )
        >>> credit.TIROTB()(rollouts).advantages.tolist()
        [[0.5, 0.0, 0.5], [-0.5, -0.5, 0.0]]
    """

    name: Literal["tir_otb"] = "tir_otb"

    def number_places(self, mask: Array) -> Array:
        """The number of the mask's tokens before it."""
        xp = namespace(mask)
        integers = xp.__array_namespace_info__().default_dtypes()["indexing"]
        return xp.cumulative_sum(xp.astype(mask, integers), axis=-1) - 1
