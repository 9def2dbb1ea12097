"""An estimator in one line of text, from its recorded settings."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from credit.estimators.base import CLASSES
from credit.estimators.dgpo import DGPO
from credit.lens.completion import Completion


@cache
def default_settings(name: str) -> dict[str, Any]:
    """The default settings of the estimator of that name; DGPO's, which others share, if it is not known."""
    kind = CLASSES.get(name, DGPO)
    # Without validation, since an estimator may have settings without a default.
    settings: dict[str, Any] = json.loads(kind.model_construct().model_dump_json())
    return settings


def complete_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the defaults of those that are missing, as in records of an older release."""
    return dict(_complete(settings, {}))


def describe_estimators(found: list[dict[str, Any]]) -> list[str]:
    """A description of each estimator, numbered where the words are the same for different settings."""
    texts = [describe_settings(settings) for settings in found]
    numbers = [texts[:place].count(text) + 1 for place, text in enumerate(texts)]
    return [text if number == 1 else f"{text} #{number}" for text, number in zip(texts, numbers, strict=True)]


def group_by_estimator(completions: Iterable[Completion]) -> dict[str, list[Completion]]:
    """The completions of each estimator by its description, in order of first appearance."""
    groups: dict[str, list[Completion]] = {}
    for completion in completions:
        settings = json.dumps(complete_settings(completion.estimator), sort_keys=True)
        groups.setdefault(settings, []).append(completion)
    names = describe_estimators([json.loads(settings) for settings in groups])
    return dict(zip(names, groups.values(), strict=True))


def describe_settings(settings: dict[str, Any]) -> str:
    """The estimator's name, what its redistribution depends on most, and what differs from the defaults.

    A schedule is written with its ends, so that an estimator has one description in all of training.
    """
    name = str(settings.get("name"))
    target = settings.get("effective_fraction") is not None
    always = ("effective_fraction" if target else "tau", "kappa") if redistributes(settings) else ()
    shown = {each: settings[each] for each in always if each in settings}
    shown |= dict(_find_changes(settings, default_settings(name)))
    listed = ", ".join(f"{each}={_write_setting(value)}" for each, value in shown.items())
    return f"{name}({listed})" if listed else name


def redistributes(settings: dict[str, Any]) -> bool:
    """Whether the estimator distributes a response's advantage by a softmax of scores, as DGPO does."""
    return "effective_fraction" in settings


def _complete(value: Any, default: Any) -> Any:
    name = value.get("name") if isinstance(value, dict) else None
    if isinstance(name, str) and name in CLASSES:
        default = default_settings(name)
    if not _is_group(value) or not isinstance(default, dict):
        return value
    missing = {name: each for name, each in default.items() if name not in value}
    return {name: _complete(each, default.get(name)) for name, each in value.items()} | missing


def _is_group(value: Any) -> bool:
    """Whether it is a mapping of settings, such as a loss, and no setting, as a schedule is."""
    return isinstance(value, dict) and not {"start", "end"} <= value.keys()


def _find_changes(settings: dict[str, Any], default: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings that differ from the defaults; those of a loss are named loss.clip_low and so on."""
    for name, value in settings.items():
        own = default.get(name)
        if name == "name" or (name in default and value == own):
            continue
        if _is_group(value) and "name" not in value and isinstance(own, dict):
            yield from ((f"{name}.{inner}", each) for inner, each in _find_changes(value, own))
        else:
            yield name, value


def _write_setting(value: Any) -> str:
    if isinstance(value, dict) and not _is_group(value):
        return (
            f"{_write_setting(value['start'])}→{_write_setting(value['end'])} {value.get('kind', 'linear')}"
        )
    if isinstance(value, dict) and "name" in value:
        return describe_settings(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_write_setting(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_write_setting, value)) + "]"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "inf" if value == "Infinity" else str(value)
