"""A weighted sum of estimators over the same batch."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.estimators.registry import parse_part
from credit.settings import refuse_without_effect
from credit.types import Array, Rollouts

AnyEstimator = Annotated[SerializeAsAny[Estimator], BeforeValidator(parse_part)]


class Mix(Estimator):
    """A weighted sum of estimators.

        A_{i,t} = sum_k c_k A^(k)_{i,t}        w = sum_k |c_k| w^(k) / sum_k |c_k|

    In JSON: {"name": "mix", "parts": [[0.7, {"name": "grpo"}], [0.3, {"name": "dgpo", "tau": 0.1}]]}. It
    needs what any of its parts needs, keeps the rows that every part keeps, and reports what a part
    observes as `name_metric`. A `preset` gives the parts what they do not name themselves. The `loss` is
    its own, not that of a part.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> mix = credit.Mix(parts=[(0.5, credit.DrGRPO()), (0.5, credit.RLOO())])
        >>> rollouts = credit.Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), np.ones((2, 1), bool))
        >>> mix(rollouts).advantages.tolist()
        [[0.75], [-0.75]]
    """

    redistributes: ClassVar[bool] = False  # A is a sum of products, not one
    name: Literal["mix"] = "mix"
    # Any sequence is taken, and kept as a tuple, which is hashable.
    parts: Annotated[Sequence[tuple[float, AnyEstimator]], Field(min_length=1), AfterValidator(tuple)]
    """Pairs of a factor c_k and an estimator, or what `credit.parse` makes one of."""

    @model_validator(mode="after")
    def _losses_have_effect(self) -> Self:
        for _, part in self.parts:
            refuse_without_effect(part, {"loss": f"in a part ({part.name}) of a mix, whose loss is its own"})
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(need for _, part in self.parts for need in part.required_fields))

    @property
    def is_uniform(self) -> bool:
        """Whether every part gives all tokens of a response one advantage."""
        kind = type(self)
        own = kind.assign is Mix.assign and kind.__call__ is Estimator.__call__
        return own and all(part.is_uniform for _, part in self.parts)

    def advantages(self, rollouts: Rollouts) -> Array:
        """sum_k c_k A_i^(k) [N], where every part gives one advantage per response."""
        if not self.is_uniform:
            return super().advantages(rollouts)
        total: Any = 0.0
        for c, part in self.parts:
            total = total + c * part.advantages(rollouts)
        return total

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        scale = sum(abs(c) for c, _ in self.parts) or 1.0
        total: Any = 0.0
        weights: Any = 0.0
        for c, part in self.parts:
            advantages, own = part.assign(rollouts)
            total = total + c * advantages
            weights = weights + abs(c) / scale * namespace(advantages).astype(own, advantages.dtype)
        return total, weights

    def keep(self, rollouts: Rollouts) -> Array:
        """True [N] for rows that every part keeps."""
        kept = [part.keep(rollouts) for _, part in self.parts]
        result = kept[0]
        for other in kept[1:]:
            result = result & other
        return result

    def returns(self, rollouts: Rollouts) -> Array | None:
        """sum_k c_k G^(k) [N, T], if every part has returns."""
        total: Any = 0.0
        for c, part in self.parts:
            own = part.returns(rollouts)
            if own is None:
                return None
            total = total + c * own
        return total

    def observed(self, rollouts: Rollouts) -> dict[str, Array]:
        """What the parts observe, prefixed by their names, which are numbered where two are the same."""
        return self._prefix([part.observed(rollouts) for _, part in self.parts])

    @property
    def observes_weights(self) -> bool:
        return any(part.observes_weights for _, part in self.parts)

    def observed_weights(
        self, rollouts: Rollouts, advantages: Array | None, weights: Array
    ) -> dict[str, Array]:
        """What the parts observe of their own weights, which are computed anew; prefixed as `observed`."""
        found: list[dict[str, Array]] = []
        for _, part in self.parts:
            own = part.assign(rollouts)[1] if part.observes_weights else None
            found.append({} if own is None else part.observed_weights(rollouts, None, own))
        return self._prefix(found)

    def _prefix(self, observed: list[dict[str, Array]]) -> dict[str, Array]:
        named = [part.name for _, part in self.parts]
        values: dict[str, Array] = {}
        for k, (_, part) in enumerate(self.parts):
            label = part.name if named.count(part.name) == 1 else f"{part.name}_{k}"
            for name, value in observed[k].items():
                if f"{label}_{name}" in values:
                    raise ValueError(
                        f"two parts of the mix observe a value that would be named '{label}_{name}'; rename "
                        "one of the values or of the estimators"
                    )
                values[f"{label}_{name}"] = value
        return values
