"""What an estimator is, and how it is found by name."""

import json
from collections.abc import Mapping, Sequence
from inspect import get_annotations
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from credit import checks, metrics
from credit.backends.arrays import inspectable, namespace, stop_gradient
from credit.loss import PolicyLoss
from credit.presets import PRESETS
from credit.schedule import Schedule
from credit.types import TOKEN_FIELDS, Array, Credit, Rollouts

_REGISTRY: dict[str, type["Estimator"]] = {}


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

    name: str
    loss: PolicyLoss = PolicyLoss()

    @property
    def needs(self) -> tuple[str, ...]:
        """The optional fields of Rollouts that these settings read."""
        return ()

    def advantages(self, rollouts: Rollouts) -> Array:
        """A_i [N] from whole groups; of the mask it may read the row sums only."""
        raise NotImplementedError(f"{type(self).__name__} gives no advantages")

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        """w [N, T], of mean 1 over each response's tokens; uniform unless overridden."""
        return rollouts.mask

    def token_metrics(self, rollouts: Rollouts, weights: Array) -> dict[str, Array]:
        """Further 0-d metrics of an estimator's own."""
        return {}

    def keep(self, rollouts: Rollouts) -> Array:
        """Which rows [N], bool, belong into a training batch; all, unless overridden."""
        rollouts = prepare(self, rollouts, ())
        xp = namespace(rollouts.rewards)
        return xp.ones_like(rollouts.valid)

    def __call__(self, rollouts: Rollouts) -> Credit:
        """Advantages [N, T], weights [N, T] and metrics, float32 (float64 for float64 rewards).

        No gradient flows through the result. A row that is not valid (default: its reward is not
        finite) gets 0 and takes no part in its group.

        Raises:
            ValueError: a statistic that the estimator needs is None, or shapes, devices, libraries
                or (where looking is free) group ids are wrong.
        """
        given, rollouts = rollouts, prepare(self, rollouts, all_needs(self))
        xp = namespace(rollouts.rewards)
        advantages, weights = self.assign(rollouts)
        weights = xp.where(rollouts.mask, xp.astype(weights, advantages.dtype), 0.0)
        found = metrics.of_groups(rollouts) | metrics.of_weights(weights, rollouts.mask)
        found |= self.token_metrics(rollouts, weights)
        advantages = xp.where(rollouts.mask, advantages, 0.0)
        if not inspectable(given.groups):  # what has no group was left out, and its answer is NaN
            nowhere = xp.astype(given.mask, xp.bool) & ~_known(given.groups)[:, None]
            advantages = xp.where(nowhere, float("nan"), advantages)
        return Credit(advantages, weights, found)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        """A [N, T] and w [N, T] of prepared rollouts; overridden by methods that are no product A_i w."""
        advantages = self.advantages(rollouts)
        weights = self.weights(rollouts, advantages)
        return advantages[:, None] * namespace(advantages).astype(weights, advantages.dtype), weights

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if "name" not in get_annotations(cls):
            return
        name = cls.model_fields["name"].default
        if not isinstance(name, str):
            raise TypeError(f'{cls.__name__} needs a default name: name: Literal["x"] = "x"')
        known = _REGISTRY.get(name)
        if known is not None and _place(known) != _place(cls):
            raise ValueError(f"the name {name!r} is taken by {'.'.join(_place(known))}")
        _REGISTRY[name] = cls

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


def names() -> tuple[str, ...]:
    """The registered estimators, sorted: what `get` and every adapter accept."""
    return tuple(sorted(_REGISTRY))


def kinds() -> dict[str, type[Estimator]]:
    """The registered classes by name."""
    return dict(_REGISTRY)


def get(name: str, *, preset: str | None = None, **settings: Any) -> Estimator:
    """The estimator of that name with the given settings; a preset gives a framework's constants.

    Raises:
        ValueError: the name or preset is unknown (the known ones are listed), or a setting is wrong.
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown estimator {name!r}; known: {', '.join(names())}")
    kind = _REGISTRY[name]
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}; known: {', '.join(sorted(PRESETS))}")
        constants = {k: v for k, v in PRESETS[preset].items() if k in kind.model_fields}
        settings = constants | settings
    return kind(**settings)


def parse(value: Estimator | str | Mapping[str, Any]) -> Estimator:
    """An estimator from what a framework's configuration carries.

    Accepts an estimator, a name, or a mapping such as {"name": "dgpo", "tau": 0.5} (JSON, YAML,
    OmegaConf); a mapping may also hold `preset`. Strings that hold JSON, as command lines give
    them, are read as JSON.

    Raises:
        ValueError: as `get`.
    """
    if isinstance(value, Estimator):
        return value
    if isinstance(value, str):
        return get(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"cannot make an estimator of {type(value).__name__}; expected a mapping")
    settings = {key: _plain(setting) for key, setting in value.items()}
    if "name" not in settings:
        raise ValueError(f"the estimator's name is missing; known: {', '.join(names())}")
    return get(**settings)


def all_needs(estimator: Estimator) -> tuple[str, ...]:
    """The fields that the estimator reads, and progress where one of its settings is scheduled."""
    scheduled = any(isinstance(value, Schedule) for _, value in estimator)
    return (*estimator.needs, "progress") if scheduled else estimator.needs


def prepare(estimator: Estimator, rollouts: Rollouts, needs: tuple[str, ...]) -> Rollouts:
    """Rollouts as the two halves see them: checked, detached, floating, 0 where no token is."""
    checks.rollout_shapes(rollouts)
    checks.missing(estimator.name, needs, rollouts)
    checks.group_ids(rollouts.groups)
    checks.valid_rewards(rollouts)
    rollouts = Rollouts(*(None if field is None else stop_gradient(field) for field in rollouts))
    xp = namespace(rollouts.rewards)
    dtype = xp.float64 if rollouts.rewards.dtype == xp.float64 else xp.float32

    def convert(name: str, array: Array | None) -> Array | None:
        if array is None:
            return array
        if name in ("groups", "turns"):  # wide enough for an id of every token
            return xp.astype(array, xp.__array_namespace_info__().default_dtypes()["indexing"])
        return xp.astype(array, xp.bool if name in ("mask", "valid") else dtype)

    rollouts = Rollouts(**{name: convert(name, a) for name, a in rollouts._asdict().items()})
    finite = xp.isfinite(rollouts.rewards)
    if finite.ndim == 2:
        finite = xp.all(finite, axis=1)
    known = _known(rollouts.groups)
    valid = (finite if rollouts.valid is None else rollouts.valid) & known
    rollouts = rollouts._replace(groups=xp.where(known, rollouts.groups, xp.zeros_like(rollouts.groups)))
    return _blank(rollouts._replace(valid=valid, mask=rollouts.mask & valid[:, None]))


def _known(groups: Array) -> Array:
    return (groups >= 0) & (groups < groups.shape[0])


def _blank(rollouts: Rollouts) -> Rollouts:
    """Zeros on every token outside the mask, so that no estimator computes with what lies there."""
    xp = namespace(rollouts.mask)
    fields = {name: getattr(rollouts, name) for name in TOKEN_FIELDS}
    return rollouts._replace(
        **{
            name: xp.where(rollouts.mask, array, xp.zeros_like(array))
            for name, array in fields.items()
            if array is not None
        }
    )


def _place(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind as dict and list, and JSON strings as what they hold."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return value
