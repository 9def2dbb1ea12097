"""The base class of every estimator."""

from collections.abc import Mapping
from inspect import get_annotations
from typing import Any, ClassVar, Self

from pydantic import (
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from credit.backends.arrays import namespace
from credit.estimators.execute import compute_credit, compute_factors, multiply
from credit.estimators.prepare import prepare_rows
from credit.loss import PolicyLoss
from credit.schedule import Schedule
from credit.settings import TAKES_DATA, Settings
from credit.types import Array, Credit, Rollouts

CLASSES: dict[str, type["Estimator"]] = {}
"""Every subclass that gives itself a name, by that name; `credit.estimators.registry` reads it."""


class Estimator(Settings):
    """Base class of the estimators: frozen settings which, called with rollouts, return their advantages.

        A_{i,t} = A_i w_{i,t}        A_i = advantages(rollouts),  w_{i,t} = weights(rollouts, A)

    A subclass overrides `advantages`, `weights` or both; a method whose advantages are no such product
    overrides `assign`. A subclass with a name of its own, `name: Literal["mine"] = "mine"`, is known to
    `get`, `parse` and every adapter by that name. Instances are hashable and picklable, so that
    `jax.jit(estimator)(rollouts)` works.

    Example:
        >>> from typing import Literal
        >>> import numpy as np
        >>> import credit
        >>> class LastToken(credit.GRPO):
        ...     name: Literal["last_token"] = "last_token"
        ...     def weights(self, rollouts, advantages):
        ...         lengths = credit.tokens.length(rollouts.mask, advantages.dtype)
        ...         return lengths * (np.arange(rollouts.mask.shape[1]) == lengths - 1)
        >>> rollouts = credit.Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), np.array([[1, 1], [1, 0]]))
        >>> credit.get("last_token", correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[0.0, 2.0], [-1.0, 0.0]]
    """

    # Traits of the class, by which tests choose properties to check and adapters choose how to compute.
    redistributes: ClassVar[bool] = True  # the weights of a response sum to its number of tokens
    row_local: ClassVar[bool] = True  # the weights of some rows do not depend on the other rows
    shift_invariant: ClassVar[bool] = True  # adding a constant to the rewards of a group changes nothing
    scale_invariant: ClassVar[bool] = False  # multiplying rewards by c has the effect of dividing eps by c
    # advantages() reads only [N] fields and the mask's row sums, and weights() is computed row by row, so
    # the rows may be processed in blocks. A subclass does not inherit this.
    blockwise: ClassVar[bool] = False

    name: str
    loss: PolicyLoss = PolicyLoss()
    """The policy loss of the paper: PPO with a clip of 0.2, mean over a response's tokens, then over the
    responses."""

    @field_validator("loss", mode="before")
    @classmethod
    def _complete_loss(cls, given: Any, info: ValidationInfo) -> Any:
        """What a mapping does not name keeps the estimator's own value; a PolicyLoss replaces the whole."""
        if not isinstance(given, Mapping):
            return given
        field = cls.model_fields["loss"]
        others: dict[str, Any] = {"validated_data": info.data} if getattr(field, TAKES_DATA, False) else {}
        own = field.get_default(call_default_factory=True, **others)
        if not isinstance(own, PolicyLoss):  # a subclass may give none
            return dict(given)
        named = {name: getattr(own, name) for name in own.model_fields_set} | dict(given)
        return named if type(own) is field.annotation else type(own)(**named)

    # Without a return type, for which pydantic would replace the JSON schema of what is dumped.
    @model_serializer(mode="wrap")
    def _dump_what_is_read(  # type: ignore[no-untyped-def]
        self, dump: SerializerFunctionWrapHandler, info: SerializationInfo
    ):
        """The name, by which `parse` knows the class, and a loss with all settings of its own class.

        Settings of the loss that are left out would be read as the estimator's own.
        """
        found: dict[str, Any] = dump(self)
        partial = info.exclude_unset or info.exclude_defaults or info.exclude_none
        if "loss" in found and (partial or type(self.loss) is not PolicyLoss):
            found["loss"] = self.loss.model_dump(mode=info.mode)
        named = info.exclude_defaults and info.include is None and "name" not in (info.exclude or ())
        return {"name": self.name, **found} if named else found

    @model_validator(mode="after")
    def _count_name_as_set(self) -> Self:
        """Keeps the name, without which `parse` knows no class, in a dump that leaves out what is not set."""
        self.model_fields_set.add("name")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the optional fields of `Rollouts` that the estimator reads under these settings."""
        return ()

    @property
    def required_fields(self) -> tuple[str, ...]:
        """The fields in `needs`, and `progress` if a setting is a Schedule."""
        return self._list_fields()

    def _list_fields(self) -> tuple[str, ...]:
        """The required fields; a method, since torch.compile cannot trace a property of super()."""
        scheduled = any(isinstance(value, Schedule) for _, value in self)
        return (*self.needs, "progress") if scheduled else self.needs

    @property
    def ignores_group_constants(self) -> bool:
        """Whether `correction` and `eps` have no effect under these settings: a preset then sets neither."""
        return False

    def advantages(self, rollouts: Rollouts) -> Array:
        """A_i [N], the advantage of each response.

        The rollouts hold whole groups. Of the mask only the row sums may be read; the [N, T] fields of a
        `blockwise` estimator are None here.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no advantages; override advantages or assign")

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        """w [N, T], by which the advantage of a response is distributed over its tokens: 1 by default."""
        return rollouts.mask

    def observed(self, rollouts: Rollouts) -> dict[str, Array]:
        """Further values [N, T] by name, whose mean and largest over the batch's tokens become metrics.

        A name x gives `x_mean` and `x_max`; a ValueError where every estimator has such a metric already.
        """
        return {}

    @property
    def observes_weights(self) -> bool:
        """Whether `observed_weights` returns something under these settings, for which it is called."""
        return False

    def observed_weights(
        self, rollouts: Rollouts, advantages: Array | None, weights: Array
    ) -> dict[str, Array]:
        """As `observed`, of the weights w [N, T]; advantages are A_i [N], or None if there is no product."""
        return {}

    def keep(self, rollouts: Rollouts) -> Array:
        """Which rows [N], bool, are worth training on: all by default. Calling the estimator ignores it."""
        valid = prepare_rows(self.name, rollouts, ()).valid
        return namespace(valid).ones_like(valid)

    def __call__(self, rollouts: Rollouts) -> Credit:
        """Advantages [N, T], weights [N, T] and metrics, float32 (float64 for float64 rewards).

        No gradient flows through the result. A row that is not valid, by default one whose reward is not
        finite, gets 0 and takes no part in its group. Where group ids cannot be checked, on accelerators
        and under tracing, a row with an id outside 0..N-1 gets NaN.

        Raises:
            ValueError: a field that the estimator needs is None; shapes, devices or libraries differ; or,
                on host arrays outside tracing, a group id is outside 0..N-1.
        """
        return compute_credit(self, rollouts)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        """A [N, T] and w [N, T] of prepared rollouts; methods that are no product A_i w override it."""
        advantages = self.advantages(rollouts)
        weights = self.weights(rollouts, advantages)
        return multiply(advantages, weights), weights

    @property
    def is_uniform(self) -> bool:
        """Whether every token of a response gets its A_i, so that it can be the `base` of another estimator.

        An estimator that overrides `assign` may say so if `advantages` gives that A_i.
        """
        return self.is_product and type(self).weights is Estimator.weights

    @property
    def runs_in_blocks(self) -> bool:
        """Whether the rows are processed in blocks: it is `blockwise` and its advantages are a product."""
        return type(self).blockwise and self.is_product

    @property
    def is_product(self) -> bool:
        """Whether the advantages are A_i w, that is, neither `assign` nor `__call__` is overridden."""
        return self._assigns_as(Estimator)

    def _assigns_as(self, kind: type["Estimator"]) -> bool:
        """Whether neither `assign` nor `__call__` is another than that class has."""
        own = type(self)
        return own.assign is kind.assign and own.__call__ is kind.__call__

    def factors(self, rollouts: Rollouts, advantages: Array | None = None) -> tuple[Array, Array]:
        """A_i [N] and w [N, T], whose product is the result's advantages on every token of the mask.

        Both are of the result's float type and carry no gradient; w is 0 outside the mask and A_i is 0
        for a row that is not valid.

        Args:
            rollouts: as for calling the estimator.
            advantages: A_i [N], where `rollouts` do not hold whole groups. Default: computed from them.

        Raises:
            ValueError: the advantages of the estimator are no such product; or as when calling it.
        """
        return compute_factors(self, rollouts, advantages)

    def returns(self, rollouts: Rollouts) -> Array | None:
        """The return [N, T] of each token, 0 for rows that are not valid; None if the estimator has none."""
        return None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "blockwise" not in vars(cls):  # a subclass may add code that looks across rows
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


def _qualified_name(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__
