"""Settings of an estimator that stand where nothing reads them, which verl lets pass."""

from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from pkgutil import resolve_name
from typing import Any, NamedTuple

from omegaconf import OmegaConf

import credit
from credit.adapters import traits
from credit.adapters.verl.settings import PREFIX, RECORDS
from credit.estimators.presets import PRESETS
from credit.estimators.registry import estimator_classes

PLACES = ("", "algorithm", "actor_rollout_ref", "actor_rollout_ref.actor", "trainer", "trainer.v1")
"""The sections of verl's config whose own keys are looked at; what lies deeper is often the user's own."""
ADAPTERS = {"divergence", "token_rewards", "statistics_memory_mb", *RECORDS, "preset"}
"""What `algorithm.credit` takes beside the settings of an estimator."""
OURS = {"credit", "credits", "adv", "advantage", "advantages", "estimator", "algo", "algorithm"}
"""Words in the name of a section that is meant for an estimator."""
BARE = {"kwargs", "settings", "params", "parameters", "args", "options"}
"""Names of a section that is meant for an estimator if it lies in `algorithm`."""
ALIKE = 0.85
"""From which likeness on a name is taken for a mistyped `credit`; verl's `critic` has 0.67, `edit` 0.8."""


class Misplaced(NamedTuple):
    """A key that nothing reads; `setting` is empty for a section of which no key is a known setting."""

    path: str
    setting: str
    value: Any


def refuse_misplaced(config: Any, estimator: credit.Estimator) -> None:
    """Raises ValueError if a key of verl's config is likely a setting that belongs to `algorithm.credit`.

    That is a key which verl's own configurations do not have and whose name is a setting of the estimator
    (in `algorithm`, of any estimator) that takes its value; or one in a section that is named as if it were
    the estimator's. A setting that `algorithm.credit` has too is not misplaced, but may be a variable of
    the user's.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    found = list(_find_misplaced(plain, estimator)) if isinstance(plain, Mapping) else []
    if found:
        listed = ", ".join(f"{each.path} ({_say_way_out(each, estimator)})" for each in found)
        raise ValueError(f"nothing would read {listed}; a key of your own goes under another name")


def _find_misplaced(config: Mapping[Any, Any], estimator: credit.Estimator) -> Iterator[Misplaced]:
    given = _select(config, "algorithm.credit")
    for place in PLACES:
        for key, value in _select(config, place).items():
            path = f"{place}.{key}".removeprefix(".")
            if path in (*PLACES, "algorithm.credit") or (key in given and place != "algorithm"):
                continue
            found = _find_in_key(path, str(key), value, estimator)
            if found and not _is_verls(config, place, key):
                yield from found


def _find_in_key(path: str, key: str, value: Any, estimator: credit.Estimator) -> list[Misplaced]:
    """What is misplaced in a key of the user's own: itself, or what a section of that name holds."""
    in_algorithm, own = path == f"algorithm.{key}", _own_settings(estimator)
    # Of all settings `loss` alone is a word that users have for much else.
    taken = key in own and key != "loss" and _accepts(estimator, key, value)
    if taken or (in_algorithm and key in _all_settings()):
        return [Misplaced(path, key, value)]
    alike = _resembles_credit(key)
    if not (isinstance(value, Mapping) and (alike or _names_ours(key, estimator, in_algorithm))):
        return []
    known = _all_settings() | {"name"} if in_algorithm or alike else own
    unknown = [Misplaced(path, "", value)] if in_algorithm and alike else []
    return list(_find_settings(path, value, known)) or unknown


def _find_settings(path: str, section: Mapping[Any, Any], settings: Collection[str]) -> Iterator[Misplaced]:
    """The settings at any depth of a section."""
    for key, value in section.items():
        if key in settings:
            yield Misplaced(f"{path}.{key}", key, value)
        elif isinstance(value, Mapping):
            yield from _find_settings(f"{path}.{key}", value, settings)


def _resembles_credit(key: str) -> bool:
    """Whether the name is credit, a mistyped one, or credit_<an estimator>."""
    name = key.lower()
    of_one = name.startswith(PREFIX) and name.removeprefix(PREFIX) in credit.names()
    return of_one or SequenceMatcher(None, name, "credit").ratio() >= ALIKE


def _names_ours(key: str, estimator: credit.Estimator, in_algorithm: bool) -> bool:
    """Whether the name is that of a section for an estimator."""
    named = key == estimator.name or not OURS.isdisjoint(key.lower().split("_"))
    return named or (in_algorithm and key in BARE)


def _own_settings(estimator: credit.Estimator) -> set[str]:
    return (ADAPTERS | set(type(estimator).model_fields)) - {"name"}


def _all_settings() -> set[str]:
    fields = {name for kind in estimator_classes().values() for name in kind.model_fields}
    return (ADAPTERS | fields) - {"name"}


def _accepts(estimator: credit.Estimator, setting: str, value: Any) -> bool:
    """Whether the setting takes the value: a path, for one, is no `base`."""
    if setting not in type(estimator).model_fields:
        return value in PRESETS if setting == "preset" else True
    try:
        estimator.model_copy(update={setting: value})
    except ValueError:
        return False
    return True


def _say_way_out(misplaced: Misplaced, estimator: credit.Estimator) -> str:
    setting, name = misplaced.setting, PREFIX + estimator.name
    if not setting:
        return f"the settings of {name} go to algorithm.credit"
    if setting == "name":
        return "the name goes to algorithm.adv_estimator"
    if setting in _own_settings(estimator):
        return f"write +algorithm.credit.{setting}={_write(misplaced.value)}"
    within = [each.name for each in _list_nested(estimator) if setting in type(each).model_fields]
    if within:
        return f"{setting} goes to {' or '.join(within)} within algorithm.credit"
    owners = sorted(
        PREFIX + name for name, kind in estimator_classes().items() if setting in kind.model_fields
    )
    return f"{name} has no {setting}, which is a setting of {', '.join(owners)}; leave it out"


def _list_nested(estimator: credit.Estimator) -> list[credit.Estimator]:
    """The parts of a mix, or the base, and theirs."""
    return [each for part in traits.list_below(estimator) for each in (part, *_list_nested(part))]


def _write(value: Any) -> str:
    """As Hydra reads it on the command line."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_write(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_write, value))}]"
    return "null" if value is None else str(value)


def _is_verls(config: Mapping[Any, Any], place: str, key: Any) -> bool:
    """Whether the dataclass of that section has the key, or a configuration that verl ships."""
    target = _select(config, place).get("_target_")
    try:
        fields = getattr(resolve_name(target), "__dataclass_fields__", {}) if target else {}
    except (ImportError, AttributeError, ValueError):  # verl's own error will name it
        fields = {}
    return key in fields or any(key in _select(shipped, place) for shipped in _read_shipped())


@cache
def _read_shipped() -> tuple[Any, ...]:
    """verl's configurations as Hydra composes them, one for each kind of engine."""
    folder = files("verl") / "trainer" / "config"
    found = [each.read_text() for each in folder.iterdir() if each.name.startswith("_generated_")]
    return tuple(OmegaConf.to_container(OmegaConf.create(text), resolve=False) for text in found)


def _select(config: Any, place: str) -> Mapping[Any, Any]:
    """The section of that name, the whole for an empty one; empty if there is none."""
    for name in filter(None, place.split(".")):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config if isinstance(config, Mapping) else {}
