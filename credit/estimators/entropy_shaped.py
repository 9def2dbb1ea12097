"""GRPO's advantage with a bonus for uncertain tokens."""

from math import log
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit.backends.arrays import namespace
from credit.estimators.group_relative import GroupRelative
from credit.types import Array, Rollouts


class EntropyShaped(GroupRelative):
    """GRPO's advantage with a bonus for uncertain tokens that never turns its sign.

        A_{i,t} = A_i + min(alpha H_{i,t}, |A_i| / kappa)

    H in nats, without gradient. Paper values: alpha 0.4, kappa 2. Loss: as GRPO's. Source: arXiv
    2506.14758.
    """

    redistributes: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["entropy_shaped"] = "entropy_shaped"
    alpha: Annotated[float, Field(ge=0)] = 0.4
    kappa: Annotated[float, Field(gt=1)] = 2.0
    vocab_size: Annotated[int, Field(ge=2)] = 151_936
    """Turns normalised entropy into nats; the default is that of the paper's Qwen2.5."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("normalized_entropy",)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        advantages = self.advantages(rollouts)[:, None]
        xp = namespace(advantages)
        bonus = self.alpha * log(self.vocab_size) * rollouts.normalized_entropy
        most = xp.abs(advantages) / self.kappa
        return advantages + xp.minimum(bonus, most + xp.zeros_like(bonus)), rollouts.mask
