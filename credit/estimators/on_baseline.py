"""Token credit on any baseline: the advantage of a response is GRPO's, or that of another estimator."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, model_validator

from credit.estimators.base import Estimator
from credit.estimators.group_relative import BASELINE_SETTINGS, GroupRelative
from credit.estimators.registry import parse, parse_part
from credit.settings import refuse_without_effect
from credit.types import Array, Rollouts


def parse_base(value: Any, info: ValidationInfo) -> Estimator | None:
    """The base that a setting names, with the preset of the whole; None: GRPO's advantage."""
    return None if value is None else parse_part(value, info)


# To type checkers it may be what `credit.parse` reads; validated, it is an Estimator or None.
Base = Annotated[
    SerializeAsAny[Estimator | str | Mapping[str, Any] | None],
    BeforeValidator(parse_base),
    Field(validate_default=True),
]


class OnBaseline(GroupRelative):
    """Base class of the estimators that give the tokens of a response different shares of its advantage.

    A_i is GRPO's, or that of another estimator, the `base`, which has one advantage per response.
    """

    base: Base = None
    """The estimator whose A_i, one per response, is given to the tokens: a name such as "rloo", a mapping
    such as {"name": "gdpo", "reward_weights": [1, 0.5]}, or an estimator. What it needs is needed, and of
    the rows those that it keeps are kept. None: GRPO's, with `correction`, `eps` and `leave_one_out`."""

    @model_validator(mode="after")
    def _base_has_one_advantage(self) -> Self:
        base = self.parsed_base
        if base is None:
            return self
        if not base.is_uniform:
            raise ValueError(
                f"{self.name} gives one advantage per response to its tokens, and its base {base.name} gives "
                "them different ones; take a base such as grpo or rloo, or add the two in a mix"
            )
        reason = f"with a base ({base.name}), whose advantage it is"
        refuse_without_effect(self, dict.fromkeys(BASELINE_SETTINGS, reason))
        refuse_without_effect(
            base, {"loss": f"in the base ({base.name}) of {self.name}, whose loss is its own"}
        )
        return self

    @property
    def parsed_base(self) -> Estimator | None:
        """The `base` as an estimator."""
        return None if self.base is None else parse(self.base)

    def _list_fields(self) -> tuple[str, ...]:
        """As for any estimator, and what the base requires."""
        own, base = super()._list_fields(), self.parsed_base
        return own if base is None else tuple(dict.fromkeys((*own, *base.required_fields)))

    @property
    def ignores_group_constants(self) -> bool:
        return self.base is not None  # which a preset reaches, too

    @property
    def runs_in_blocks(self) -> bool:
        """As for any estimator, if the base reads fields of shape [N] and the mask's row sums only."""
        base = self.parsed_base
        blockwise = type(self).blockwise and (base is None or type(base).blockwise)
        return blockwise and self.is_product

    def advantages(self, rollouts: Rollouts) -> Array:
        base = self.parsed_base
        return super().advantages(rollouts) if base is None else base.advantages(rollouts)

    def keep(self, rollouts: Rollouts) -> Array:
        """True [N] for the rows that the base keeps; without a base, for all."""
        base = self.parsed_base
        return super().keep(rollouts) if base is None else base.keep(rollouts)
