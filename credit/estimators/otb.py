"""A baseline per token, weighted by how much gradient the responses have gathered up to it."""

from typing import Literal

from credit.backends.arrays import namespace
from credit.estimators.optimal_baseline import OptimalBaseline
from credit.types import Array


class OTB(OptimalBaseline):
    """Optimal Token Baseline: a baseline per position, weighted by the gradient gathered up to it.

        A_{i,t} = G_{i,t} - B_t,  B_t = sum_i W_{i,t} G_{i,t} / sum_i W_{i,t},  G_{i,t} = r_{i,t} + G_{i,t+1}
        W_{i,t} = sum_{j <= t} (1 - 2 p_{i,j} + sum_v p_{i,j}(v)^2)

    B_t is over the responses of the group that have a t-th token. W stands for the squared norm of the
    gradient, by that with respect to the logits; p is the probability of the sampled token, and
    sum_v p(v)^2 is extra["sum_squares"]. The t-th token is the one in column t, so that the responses of a
    group must start in one column: where tools interrupt them, take `tir_otb`.
    Where W is 0 in all responses, that is, where no token so far had an alternative, the baseline is their
    mean (verl's is 0). A group with one valid response gets 0, and so do tokens whose peers have the same
    return.
    Source: arXiv 2602.07078.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 1), bool),
        ...     log_probs=np.log([[0.5], [0.25]]),
        ...     extra={"sum_squares": np.array([[0.5], [0.5]])},
        ... )
        >>> credit.OTB()(rollouts).advantages.round(4).tolist()  # W is 0.5 and 1
        [[0.6667], [-0.3333]]
    """

    name: Literal["otb"] = "otb"

    def number_places(self, mask: Array) -> Array:
        """The column."""
        xp = namespace(mask)
        integers = xp.__array_namespace_info__().default_dtypes()["indexing"]
        return xp.cumulative_sum(xp.ones_like(mask, dtype=integers), axis=-1) - 1
