"""What an estimator is."""

from inspect import get_annotations
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from credit.backends.arrays import namespace
from credit.estimators.execute import compute_credit, compute_factors, multiply
from credit.estimators.prepare import prepare_rows
from credit.loss import PolicyLoss
from credit.schedule import Schedule
from credit.types import Array, Credit, Rollouts

CLASSES: dict[str, type["Estimator"]] = {}
"""Every subclass that gives itself a name, by that name; `credit.estimators.registry` reads it."""


class Estimator(BaseModel):
    """Settings that compute: its fields are its settings, and calling it gives the advantages.

        A_{i,t} = A_i w_{i,t}    with A_i = advantages(rollouts) and w = weights(rollouts, A)

    Override either half. A subclass that gives itself a name, `name: Literal["mine"] = "mine"`, is
    found by it at once in `get`, `parse` and every adapter. Instances are frozen, hashable and
    picklable, so that `jax.jit(estimator)(rollouts)` works as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    # Traits, which the conformance tests select on and the adapters rely on.
    redistributes: ClassVar[bool] = True  # the weights of a response sum to its length
    row_local: ClassVar[bool] = True  # the weights of a slice of rows are the slice of the weights
    shift_invariant: ClassVar[bool] = True  # a constant added to a group's rewards changes nothing
    scale_invariant: ClassVar[bool] = False  # rewards times c equal eps / c
    blockwise: ClassVar[bool] = False  # rows meet in A_i alone, which reads no token field; not inherited

    name: str
    loss: PolicyLoss = PolicyLoss()

    @property
    def needs(self) -> tuple[str, ...]:
        """The optional fields of Rollouts that these settings read."""
        return ()

    @property
    def required_fields(self) -> tuple[str, ...]:
        """What these settings `needs`, and `progress` where one of them is scheduled."""
        scheduled = any(isinstance(value, Schedule) for _, value in self)
        return (*self.needs, "progress") if scheduled else self.needs

    def advantages(self, rollouts: Rollouts) -> Array:
        """A_i [N] from whole groups; of the mask it may read the row sums only.

        A `blockwise` estimator finds None in the token fields here.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no advantages")

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        """w [N, T], of mean 1 over each response's tokens; uniform unless overridden."""
        return rollouts.mask

    def observed(self, rollouts: Rollouts) -> dict[str, Array]:
        """Further values [N, T] by name, whose mean and largest over the batch's tokens become metrics.

        A name x gives `x_mean` and `x_max`; a ValueError where every estimator has such a metric already.
        """
        return {}

    def keep(self, rollouts: Rollouts) -> Array:
        """Which rows [N], bool, belong into a training batch; all, unless overridden."""
        valid = prepare_rows(self.name, rollouts, ()).valid
        return namespace(valid).ones_like(valid)

    def __call__(self, rollouts: Rollouts) -> Credit:
        """Advantages [N, T], weights [N, T] and metrics, float32 (float64 for float64 rewards).

        No gradient flows through the result. A row that is not valid (default: its reward is not
        finite) gets 0 and takes no part in its group.

        Raises:
            ValueError: a statistic that the estimator needs is None, or shapes, devices, libraries
                or (where looking is free) group ids are wrong.
        """
        return compute_credit(self, rollouts)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        """A [N, T] and w [N, T] of prepared rollouts; overridden by methods that are no product A_i w."""
        advantages = self.advantages(rollouts)
        weights = self.weights(rollouts, advantages)
        return multiply(advantages, weights), weights

    @property
    def is_product(self) -> bool:
        """Whether the advantages are A_i w: whether neither `assign` nor `__call__` is overridden."""
        kind = type(self)
        return kind.assign is Estimator.assign and kind.__call__ is Estimator.__call__

    def factors(self, rollouts: Rollouts, advantages: Array | None = None) -> tuple[Array, Array]:
        """A_i [N] and w [N, T], whose product is the result's advantages on every token of the mask.

        Both are of the result's float type and carry no gradient; w is 0 outside the mask and A_i is 0
        for a row that is not valid.

        Args:
            rollouts: as for calling the estimator.
            advantages: A_i [N] from elsewhere, where `rollouts` do not hold whole groups; computed if None.

        Raises:
            ValueError: the estimator is no product, or as calling the estimator.
        """
        return compute_factors(self, rollouts, advantages)

    def returns(self, rollouts: Rollouts) -> Array | None:
        """Returns [N, T] of the tokens, with the advantages' rules for what is not valid; None: it has none."""
        return None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if "blockwise" not in vars(cls):  # what a subclass adds may look across rows
            cls.blockwise = False
        if "name" not in get_annotations(cls):
            return
        name = cls.model_fields["name"].default
        if not isinstance(name, str):
            raise TypeError(f'{cls.__name__} needs a default name: name: Literal["x"] = "x"')
        known = CLASSES.get(name)
        if known is not None and _qualified_name(known) != _qualified_name(cls):
            raise ValueError(f"the name {name!r} is taken by {'.'.join(_qualified_name(known))}")
        CLASSES[name] = cls

    @model_validator(mode="before")
    @classmethod
    def _known_settings(cls, values: Any) -> Any:
        if isinstance(values, dict):
            unknown = sorted(set(values) - set(cls.model_fields))
            if unknown:
                raise ValueError(
                    f"unknown setting {', '.join(map(repr, unknown))}; "
                    f"{cls.__name__} has {', '.join(sorted(cls.model_fields))}"
                )
        return values


def _qualified_name(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__
