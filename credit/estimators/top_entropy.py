"""GRPO's advantage on the batch's most uncertain tokens only."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import tokens
from credit.backends.arrays import namespace
from credit.estimators.on_baseline import OnBaseline
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class TopEntropy(OnBaseline):
    """The 80/20 rule: GRPO's advantage on the batch's most uncertain tokens, 0 on the others.

        A_{i,t} = A_i w_{i,t}        w_{i,t} = 1[H_{i,t} >= quantile_batch(H, 1 - fraction)]

    The quantile is taken over all tokens of the batch, so a response may keep none of its tokens.
    Source: arXiv 2506.01939.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 2), bool),
        ...     normalized_entropy=np.array([[0.4, 0.1], [0.3, 0.2]]),
        ... )
        >>> credit.TopEntropy(fraction=0.5)(rollouts).weights.tolist()
        [[1.0, 0.0], [1.0, 0.0]]
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    name: Literal["top_entropy"] = "top_entropy"
    loss: PolicyLoss = PolicyLoss(clip_high=0.28, aggregation="token_mean")
    """The policy loss of the paper, which is DAPO's: clip to [0.8, 1.28], mean over all tokens."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Fraction of the batch's tokens that keep their advantage."""

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("normalized_entropy", *self.base_fields)))

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        entropy, mask = rollouts.normalized_entropy, rollouts.mask
        xp = namespace(entropy)
        least = tokens.quantile(entropy, mask & xp.isfinite(entropy), 1.0 - self.fraction)
        chosen = xp.astype(mask & (entropy >= least), entropy.dtype)
        return xp.where(mask & xp.isnan(entropy), entropy, chosen)  # a NaN is kept, so that it is seen
