"""Errors for bad input: shapes are checked always, values on host arrays outside tracing only.

Values are checked by numpy, on what the caller gave: JAX traces even what is computed from a constant, such
as ids that a jitted function closes over, so that no value of an array that was made here is known there.
"""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, is_jax_array

from credit.backends.arrays import INTEGERS, dtype_name, find_fault, is_in_range, is_inspectable, to_numpy
from credit.fields import EXTRA, EXTRAS, find_rule, get_array, list_arrays
from credit.several_rewards import find_missing, find_scored_rows
from credit.types import FIELDS, Array, FieldRule, Rollouts

_PLAIN = (
    "expected an array of numpy, torch, JAX or array_api_strict that is dense, whole and without a mask of "
    "its own, and holds bool, integers or floats of 16 to 64 bits; numpy.asarray, torch.from_dlpack, "
    ".float(), .filled(numpy.nan), .to_dense() and .full_tensor() make one"
)
_SMALLEST_TEMPERATURE = 1e-30  # below, a logit over it, or its inverse, may leave float32
_DIMENSIONS = {"[N] or [N, K]": (1, 2), "[N]": (1,), "[N, T]": (2,), "[N, K]": (2,), "[]": (0,)}


def check_same_library(**arrays: Array) -> Any:
    """The arrays' common namespace; a ValueError names the odd one out."""
    given = {name: array for name, array in arrays.items() if array is not None}
    for name, array in given.items():
        fault = find_fault(array)
        if fault is not None:
            raise ValueError(f"{name} is {fault}; {_PLAIN}")
    try:
        xp = array_namespace(*given.values())
    except TypeError:
        kinds = ", ".join(f"{n}: {type(a).__module__.split('.')[0]}" for n, a in given.items())
        raise ValueError(f"all arrays must be of one library; got {kinds}") from None
    places = {name: _device_of(array) for name, array in given.items()}
    if len(set(places.values()) - {None}) > 1:
        listed = ", ".join(f"{name}: {place}" for name, place in places.items())
        raise ValueError(f"all arrays must be on one device; got {listed}")
    return xp


def check_shape(name: str, array: Array, expected: tuple[int, ...], why: str) -> None:
    """A ValueError unless `array` has the expected shape."""
    if tuple(array.shape) != tuple(expected):
        raise ValueError(f"{name} has shape {tuple(array.shape)}; expected {tuple(expected)}, {why}")


def check_rollout_shapes(rollouts: Rollouts) -> None:
    """A ValueError unless every field is an array of one library, on one device, of its shape."""
    if not isinstance(rollouts, Rollouts):
        raise ValueError(
            f"the rollouts are a {type(rollouts).__name__}; expected credit.Rollouts, which takes the "
            "fields by name"
        )
    if not isinstance(rollouts.extra, Mapping | None):
        raise ValueError(f"extra is a {type(rollouts.extra).__name__}; expected a mapping of arrays by name")
    strange = [name for name in rollouts.extra or () if not isinstance(name, str)]
    if strange:
        raise ValueError(f"an array in extra is named {strange[0]!r}; expected names that are strings")
    fields = list_arrays(rollouts)
    for name in ("rewards", "groups", "mask"):
        if name not in fields:
            raise ValueError(f"rollouts need {name}; it is None")
    groups = fields["groups"]
    if is_array_api_obj(groups) and dtype_name(groups) not in INTEGERS:
        raise ValueError(
            f"groups are {groups.dtype}; expected integers in 0..N-1, which "
            "np.unique(ids, return_inverse=True)[1] makes of ids of any kind"
        )
    check_same_library(**fields)
    rules = {name: find_rule(name, array, fields["mask"]) for name, array in fields.items()}
    for name, array in fields.items():
        # Numbers in between would be cut to integers, and what they tell apart would be one.
        if rules[name].kind == "integer" and dtype_name(array) not in INTEGERS:
            raise ValueError(
                f"{name} are {array.dtype}; expected integers, which "
                "np.unique(values, return_inverse=True)[1] makes of values of any kind"
            )
        if array.ndim not in _DIMENSIONS.get(rules[name].shape, ()):
            raise ValueError(f"{name} has shape {tuple(array.shape)}; expected {rules[name].shape}")
    rows, tokens = fields["mask"].shape
    if not (rows and tokens):
        raise ValueError(f"the mask is [N, T] = {rows, tokens}; expected at least one row and one token")
    for name, array in fields.items():
        if array.ndim and array.shape[0] != rows:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}, but the mask is [N, T] = {rows, tokens}"
            )
        if rules[name].shape == "[N, T]":
            check_shape(name, array, (rows, tokens), "the mask's [N, T]")


def check_group_ids(groups: Array) -> None:
    """A ValueError for an id outside 0..N-1, on host arrays outside tracing."""
    if is_inspectable(groups):
        _check_values(FIELDS["groups"], to_numpy(groups))


def check_valid_rewards(rollouts: Rollouts) -> None:
    """A ValueError for a reward that is not finite and said to be valid, on host arrays outside tracing."""
    rewards, valid = rollouts.rewards, rollouts.valid
    if valid is not None and is_inspectable(rewards) and is_inspectable(valid):
        values = to_numpy(rewards)
        _check_values(FIELDS["rewards"], values, _counted_rewards(values, to_numpy(valid).astype(bool)))


def check_token_ids(token_ids: Array, mask: Array | None, size: int) -> None:
    """A ValueError for the first id of the mask outside the vocabulary, on host arrays outside tracing."""
    if not (is_inspectable(token_ids) and (mask is None or is_inspectable(mask))):
        return
    ids = to_numpy(token_ids)
    outside = ~is_in_range(ids, size)
    bad = np.argwhere(outside if mask is None else outside & to_numpy(mask).astype(bool))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"token_ids{list(place)} is {int(ids[place])}; expected an id in 0..{size - 1} (the vocabulary)"
        )


def check_temperature(value: Any, tokens: tuple[int, ...]) -> None:
    """A ValueError unless it is positive and finite, a number or an array of the tokens' shape."""
    expected = f"a positive number, at least {_SMALLEST_TEMPERATURE:g}"
    if isinstance(value, Real):
        if not _SMALLEST_TEMPERATURE <= float(value) < float("inf"):
            raise ValueError(f"temperature is {value}; expected {expected}")
        return
    if not is_array_api_obj(value):
        raise ValueError(f"temperature is a {type(value).__name__}; expected a number or an array")
    if tuple(value.shape) not in ((), tokens):
        check_shape("temperature", value, tokens, "the shape of token_ids, or a number")
    if is_inspectable(value):
        values = to_numpy(value)
        good = (values >= _SMALLEST_TEMPERATURE) & np.isfinite(values)
        _require("temperature", good, values, expected)


def check_needs(name: str, needs: tuple[str, ...], rollouts: Rollouts) -> None:
    """A ValueError for arrays that an estimator needs and that are not given."""
    for need in needs:
        if need not in FIELDS and not need.startswith(EXTRA):
            raise ValueError(
                f"{name} needs {need!r}, which is no field of Rollouts; an array of your own goes into "
                f"extra, and its name into needs as {EXTRA + need!r}"
            )
    absent = [need for need in needs if get_array(rollouts, need) is None]
    if absent:
        raise ValueError(
            f"{name} needs {' and '.join(needs)}; {' and '.join(absent)} of the rollouts "
            f"{'is' if len(absent) == 1 else 'are'} None{_hint_at_source(absent)}"
        )


def require_single_reward(name: str, rollouts: Rollouts) -> Array:
    """The rewards [N]; a ValueError where there are several per response."""
    if rollouts.rewards.ndim != 1:
        raise ValueError(
            f"{name} takes one reward per response; rewards have shape "
            f"{tuple(rollouts.rewards.shape)}, so sum or weigh them first"
        )
    return rollouts.rewards


def _hint_at_source(absent: list[str]) -> str:
    sources = {name: (FIELDS.get(name) or EXTRAS.get(name)) for name in absent}
    computed = [n for n, rule in sources.items() if rule and rule.source in ("policy", "reference")]
    also = [name.removeprefix(EXTRA) for name in computed if name.startswith(EXTRA)]
    asked = f" with also={tuple(also)}" if also else ""
    return f" (credit.token_statistics{asked} computes them)" if computed else ""


def validate(rollouts: Rollouts) -> None:
    """Looks at every value and raises a ValueError that names the first wrong one; for debugging.

    It copies to the host and so synchronizes a device; it cannot run under jit. What it accepts:
    groups in 0..N-1, a mask of 0 and 1, and, on the mask's tokens of valid rows, log-probs <= 0,
    entropy and deviation in [0, 1], turns in 0..T-1 that do not fall, finite token rewards, and in `extra`
    what the names that the library knows allow. A non-finite reward is no error unless `valid` says that it
    counts: it makes its row invalid. A NaN beside other rewards of its row was not given, and is no error.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> credit.validate(credit.Rollouts(np.array([1.0]), np.array([7]), np.array([[1, 1]])))
        Traceback (most recent call last):
        ValueError: groups[0] is 7; expected an integer in 0..0 (N rows)
    """
    check_rollout_shapes(rollouts)
    values = {name: to_numpy(array) for name, array in list_arrays(rollouts).items()}
    rules = {name: find_rule(name, array, values["mask"]) for name, array in values.items()}
    valid = values["valid"] if "valid" in values else find_scored_rows(values["rewards"])
    valid = valid.astype(bool)
    chosen = (values["mask"] != 0) & valid[:, None]
    for name, array in values.items():
        counted = {"rewards": _counted_rewards(values["rewards"], valid), "mask": None}.get(
            name, chosen if rules[name].shape == "[N, T]" else None
        )
        _check_values(rules[name], array, counted)
    if "turns" in values:
        turns = values["turns"]
        highest = np.maximum.accumulate(np.where(chosen, turns, 0), axis=1)
        expected = "no lower number than at an earlier token of the response"
        _require("turns", (turns == highest) | ~chosen, turns, expected)


def _counted_rewards(rewards: Any, valid: Any) -> Any:
    """Which rewards [N] or [N, K] have to be finite: those of valid rows that were given."""
    return valid.reshape(-1, *[1] * (rewards.ndim - 1)) & ~find_missing(rewards)


def _check_values(rule: FieldRule, values: Any, counted: Any = None) -> None:
    """A ValueError for the first value, among the counted ones, that breaks the field's rule."""
    if not rule.values:
        return
    last = rule.largest(values.shape)
    good = np.isfinite(values) if rule.finite else np.ones(values.shape, bool)
    if rule.kind == "bool":
        good = (values == 0) | (values == 1)
    if rule.least is not None:
        good &= values >= rule.least
    if last is not None:
        good &= values <= last
    if counted is not None:
        good |= ~counted.reshape(counted.shape + (1,) * (values.ndim - counted.ndim))
    _require(rule.name, good, values, rule.values.format(last=last))


def _require(name: str, good: Any, values: Any, expected: str) -> None:
    if not good.all():
        place = tuple(int(i) for i in np.argwhere(~good)[0])
        raise ValueError(f"{name}{list(place) or ''} is {values[place]}; expected {expected}")


def _device_of(array: Array) -> Any:
    # JAX spreads one array over many devices, each differently, and refuses itself what does not fit.
    return None if is_jax_array(array) else device(array)
