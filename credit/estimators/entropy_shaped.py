"""GRPO's advantage with a bonus for uncertain tokens."""

from math import log
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from credit.backends.arrays import namespace
from credit.estimators.on_baseline import OnBaseline
from credit.settings import refuse_without_effect
from credit.types import Array, Rollouts


class EntropyShaped(OnBaseline):
    """GRPO's advantage with a bonus for uncertain tokens that never turns its sign.

        A_{i,t} = A_i + min(alpha H_{i,t}, |A_i| / kappa)

    H is the entropy in nats and carries no gradient. The paper's values are alpha = 0.4 and kappa = 2.
    Source: arXiv 2506.14758.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 2), bool),
        ...     normalized_entropy=np.array([[0.0, 1.0], [0.0, 1.0]]),
        ... )
        >>> credit.EntropyShaped(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[1.0, 1.5], [-1.0, -0.5]]
    """

    redistributes: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["entropy_shaped"] = "entropy_shaped"
    alpha: Annotated[float, Field(ge=0)] = 0.4
    """Factor on the entropy in nats."""
    kappa: Annotated[float, Field(gt=1)] = 2.0
    """The bonus is at most |A_i| / kappa, so that the sign of the advantage stays."""
    vocab_size: Annotated[int, Field(ge=2)] = 151_936
    """Size V of the vocabulary, by which normalized entropy becomes nats; the default is that of the
    paper's Qwen2.5."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        refuse_without_effect(
            self, dict.fromkeys(("kappa", "vocab_size"), None if self.alpha else "with alpha=0")
        )
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("normalized_entropy", *self.base_fields)))

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        advantages = self.advantages(rollouts)[:, None]
        xp = namespace(advantages)
        bonus = self.alpha * log(self.vocab_size) * rollouts.normalized_entropy
        most = xp.abs(advantages) / self.kappa
        return advantages + xp.minimum(bonus, most + xp.zeros_like(bonus)), rollouts.mask
