"""The arrays of `Rollouts` by name, those in `extra` among them as "extra.name"."""

from collections.abc import Callable, Mapping
from typing import Any

from credit.backends.arrays import INTEGERS, dtype_name
from credit.types import FIELDS, FRACTION, LOG_PROB, Array, FieldRule, Rollouts

EXTRA = "extra."

_NATS = "a number of nats, at least 0"

_KNOWN = (
    FieldRule("extra.token_ids", "[N, T]", "integer", "an id, at least 0", least=0),
    FieldRule("extra.states", "[N, T]", "integer"),
    FieldRule("extra.planning", "[N, T]", "bool", "0 or 1"),
    FieldRule("extra.values", "[N, T]", "float", "a finite number", finite=True),
    FieldRule("extra.teacher_log_probs", "[N, T]", "float", LOG_PROB, most=0),
    FieldRule("extra.sum_squares", "[N, T]", "float", FRACTION, 0, 1, source="policy"),
    FieldRule("extra.entropy", "[N, T]", "float", _NATS, 0, source="policy"),
    FieldRule("extra.kl", "[N, T]", "float", _NATS, 0, source="reference"),
    FieldRule("extra.reverse_kl", "[N, T]", "float", _NATS, 0, source="reference"),
)
EXTRAS = {rule.name: rule for rule in _KNOWN}
"""A rule for each name in `extra` that the library knows: what its estimators read and its statistics give.

Other names are free."""


def find_rule(name: str, array: Array, mask: Array) -> FieldRule:
    """What the array of that name holds; of a free name in `extra`, what its shape and dtype say.

    There an array as wide as the mask holds a value per token.
    """
    rule = FIELDS.get(name) or EXTRAS.get(name)
    if rule is not None:
        return rule
    dtype, shapes = dtype_name(array), {1: "[N]", 2: "[N, K]"}
    shape: Any = shapes.get(array.ndim, "[N], [N, T] or [N, K]")
    if array.ndim == 2 and array.shape[1:] == mask.shape[1:]:
        shape = "[N, T]"
    return FieldRule(name, shape, "bool" if dtype == "bool" else "integer" if dtype in INTEGERS else "float")


def is_per_token(name: str, array: Array, mask: Array) -> bool:
    """Whether it is an array [N, T] beside the mask."""
    return name != "mask" and find_rule(name, array, mask).shape == "[N, T]"


def list_arrays(rollouts: Rollouts) -> dict[str, Array]:
    """All arrays that are given, by name."""
    fields = rollouts._asdict()
    extra = fields.pop("extra") or {}
    named = fields | {EXTRA + name: array for name, array in extra.items()}
    return {name: array for name, array in named.items() if array is not None}


def get_array(rollouts: Rollouts, name: str) -> Array | None:
    """The array of that name, or None."""
    if not name.startswith(EXTRA):
        return getattr(rollouts, name)
    return (rollouts.extra or {}).get(name.removeprefix(EXTRA))


def replace_arrays(rollouts: Rollouts, arrays: Mapping[str, Array]) -> Rollouts:
    """The rollouts with other arrays of those names; None takes one away."""
    fields: dict[str, Any] = {n: array for n, array in arrays.items() if not n.startswith(EXTRA)}
    extra = {n.removeprefix(EXTRA): array for n, array in arrays.items() if n.startswith(EXTRA)}
    if extra:
        merged = dict(rollouts.extra or {}) | extra
        fields["extra"] = {name: array for name, array in merged.items() if array is not None}
    return rollouts._replace(**fields)


def map_arrays(function: Callable[[Array], Array], rollouts: Rollouts) -> Rollouts:
    """The rollouts with `function` applied to each array that is given."""
    return replace_arrays(rollouts, {name: function(array) for name, array in list_arrays(rollouts).items()})
