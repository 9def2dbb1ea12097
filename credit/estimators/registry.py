"""Estimators by name, and from the mappings of configuration files."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationInfo

from credit.estimators.base import CLASSES, Estimator
from credit.estimators.presets import GROUP_CONSTANTS, PRESETS


def names() -> tuple[str, ...]:
    """The sorted names of the registered estimators, which `get` and every adapter accept.

    Example:
        >>> import credit
        >>> {"dapo", "dgpo", "grpo"} <= set(credit.names())
        True
    """
    return tuple(sorted(CLASSES))


def estimator_classes() -> dict[str, type[Estimator]]:
    """The registered classes by name."""
    return dict(CLASSES)


def get(name: str, *, preset: str | None = None, **settings: Any) -> Estimator:
    """Makes the estimator of that name.

    A type checker knows the result as an `Estimator`. It checks settings, and knows the attributes, where
    the class itself is called: `credit.DGPO(tau=0.1)`.

    Args:
        name: one of `names()`.
        preset: a framework whose std correction, eps and other constants of group baselines the estimator
            takes: "trl", "ms-swift", "slime", "verl", "openrlhf" or "skyrl". The result is the framework's
            where a group's rewards differ. A group of one, and one of equal rewards, get 0, where verl and
            SkyRL keep the reward of a group of one and all of them divide the rounding of equal rewards by
            eps. The parts of a mix, and a base, take them too.
        settings: the estimator's settings, which take precedence over the preset. Default: its own. Of
            `loss`, a mapping may name a part, and the rest stays the estimator's own; a `PolicyLoss`
            replaces the whole.

    Raises:
        ValueError: the name or preset is unknown (the known ones are listed), or a setting is wrong.

    Example:
        >>> import credit
        >>> credit.get("dgpo", tau=0.1).tau
        0.1
        >>> credit.get("grpo", preset="trl").eps
        0.0001
        >>> credit.get("dapo", loss={"kl_coefficient": 0.1}).loss.clip_high
        0.28
    """
    if not isinstance(name, str) or name not in CLASSES:
        raise ValueError(f"unknown estimator {name!r}; known: {', '.join(names())}")
    return _make(CLASSES[name], preset, settings)


def _make(kind: type[Estimator], preset: str | None, settings: Mapping[str, Any]) -> Estimator:
    if preset is None:
        return kind(**settings)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(sorted(PRESETS))}")
    context = {"preset": preset}
    constants = {k: v for k, v in PRESETS[preset].items() if k in kind.model_fields}
    required = {k: v for k, v in constants.items() if kind.model_fields[k].is_required()}
    if kind.model_validate({**required, **settings}, context=context).ignores_group_constants:
        constants = {k: v for k, v in constants.items() if k not in GROUP_CONSTANTS}
    return kind.model_validate({**constants, **settings}, context=context)


def parse(value: Estimator | str | Mapping[str, Any]) -> Estimator:
    """Makes an estimator from a value in a framework's configuration.

    Args:
        value: an estimator, a name, or a mapping such as {"name": "dgpo", "tau": 0.5} from JSON, YAML or
            OmegaConf, which may also hold a `preset`. A mapping, or a value in it, that is a string of
            JSON, as command lines pass them, is read as JSON.

    Raises:
        ValueError: the value is none of these, or as `get` raises it.

    Example:
        >>> import credit
        >>> credit.parse({"name": "dgpo", "tau": "0.1"}) == credit.DGPO(tau=0.1)
        True
    """
    if isinstance(value, Estimator):
        return value
    settings = _read_mapping(value)
    if "name" not in settings:
        raise ValueError(f"the estimator's name is missing; known: {', '.join(names())}")
    return get(**settings)


def parse_part(value: Any, info: ValidationInfo) -> Estimator:
    """The estimator within another, with the preset of the whole for the settings that it does not name."""
    preset = (info.context or {}).get("preset")
    if preset is None:
        return parse(value)
    if isinstance(value, Estimator):
        named = {name: each for name, each in value if name in value.model_fields_set}
        return _make(type(value), preset, named)
    return parse({"preset": preset, **_read_mapping(value)})


def _read_mapping(value: Any) -> dict[str, Any]:
    """The mapping, or the one that a string of JSON or a bare name stands for, with plain values."""
    found = _to_plain(value)
    if isinstance(value, str) and not isinstance(found, dict):
        return {"name": value}
    if not isinstance(found, dict):
        raise ValueError(f"cannot make an estimator of {type(value).__name__}; expected a mapping")
    strange = [key for key in found if not isinstance(key, str)]
    if strange:
        raise ValueError(f"a setting is named {strange[0]!r}; expected names that are strings")
    return found


def _to_plain(value: Any) -> Any:
    """Mappings and sequences of any kind as dict and list, and JSON strings as what they hold."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return value
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_to_plain(item) for item in value]
    return value
