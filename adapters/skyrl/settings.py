"""From SkyRL's config to an estimator: advantage_estimator and credit.* of trainer.algorithm."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import credit
from credit.adapters import fields, rules, traits
from credit.adapters.skyrl.hooks import FRAMEWORK

PREFIX = FRAMEWORK.prefix
SECTION = "trainer.algorithm.credit"
OPTION = "trainer.algorithm.advantage_estimator"


class Choice(NamedTuple):
    """An estimator, and how much memory its token statistics may take."""

    estimator: credit.Estimator
    statistics_memory_mb: float | None = None  # for tiles of logits; None: what `find_budget` finds

    @property
    def statistics(self) -> tuple[str, ...]:
        """The token statistics that the estimator reads."""
        return fields.needed_statistics(self.estimator)

    @property
    def scored(self) -> tuple[str, ...]:
        """What the policy's workers compute: also what is logged, and log-probs to compare with SkyRL's."""
        if not self.statistics:
            return ()
        return tuple(dict.fromkeys((*fields.add_logged(self.statistics), "log_probs")))

    @property
    def compares(self) -> bool:
        """Whether a reference model has to run."""
        return fields.needs_reference(self.estimator)


def is_ours(name: Any) -> bool:
    """Whether an advantage_estimator is one of credit's."""
    return str(name).startswith(PREFIX)


def list_names() -> str:
    """The names by which SkyRL's users choose credit's estimators."""
    return ", ".join(PREFIX + name for name in credit.names())


def parse_settings(algorithm: Any) -> Choice:
    """The estimator that SkyRL's `trainer.algorithm` names, with the settings under `credit`.

    Raises:
        ValueError: an unknown estimator or setting, or a wrong value, of which the known ones are listed.
    """
    settings = read_section(algorithm)
    if "name" in settings:
        raise ValueError(f"{SECTION}.name is not used; the name goes to {OPTION}")
    memory_mb = settings.pop("statistics_memory_mb", None)
    name = str(algorithm.advantage_estimator)
    if name.removeprefix(PREFIX) not in credit.names():
        raise ValueError(f"unknown estimator {name!r}; known: {list_names()}")
    choice = Choice(credit.parse({"name": name.removeprefix(PREFIX), **settings}))
    return choice if memory_mb is None else _set_memory(choice, memory_mb)


def read_section(algorithm: Any) -> dict[str, Any]:
    """The settings under `trainer.algorithm.credit`, by name."""
    settings = algorithm.credit
    if not isinstance(settings, Mapping):
        raise ValueError(f"{SECTION} is {settings!r}; expected settings such as {SECTION}.tau=0.1")
    return dict(settings)


def refuse_misplaced(algorithm: Any) -> None:
    """Raises ValueError if a config that names no estimator of credit was meant to do so."""
    name = str(algorithm.advantage_estimator)
    if read_section(algorithm):
        raise ValueError(
            f"{SECTION} is set, but {OPTION}={name} is not one of credit's; set one of {list_names()}, or "
            f"leave {SECTION} out"
        )


def is_misnamed(name: str, known: Any) -> bool:
    """Whether it is a name of credit's without the prefix, and none that SkyRL knows."""
    return name in credit.names() and name not in known


def misnamed_error(name: str) -> ValueError:
    """The error for such a name."""
    return ValueError(f"SkyRL has no estimator {name!r}; credit's is {OPTION}={PREFIX}{name}")


def refuse_without_effect(estimator: credit.Estimator, algorithm: Any) -> None:
    """Refuses options of `trainer.algorithm` by which SkyRL's own estimators compute advantages."""
    name = FRAMEWORK.name_of(estimator)
    if not algorithm.grpo_norm_by_std:
        raise rules.no_effect_error(
            "trainer.algorithm.grpo_norm_by_std=false",
            name,
            "says itself whether rewards are scaled",
            f"leave it out ({PREFIX}dr_grpo does not scale)",
        )
    for option, setting, noun in (("gamma", "gamma", "discount"), ("lambd", "lam", "lambda")):
        value = getattr(algorithm, option)
        if value != 1:
            own = any(hasattr(part.estimator, setting) for part in traits.list_parts(estimator))
            place = f"{SECTION}.{setting}" if hasattr(estimator, setting) else f"a part's {setting}"
            way_out = f"set {place}={value:g} instead" if own else "leave it out"
            reason = f"has a {noun} of its own" if own else f"has no {noun}"
            raise rules.no_effect_error(f"trainer.algorithm.{option}={value:g}", name, reason, way_out)


def _set_memory(choice: Choice, value: Any) -> Choice:
    """The choice with that many megabytes, a positive number, if tiles of logits are made at all."""
    setting = f"{SECTION}.statistics_memory_mb={value}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{setting}; expected a positive number")
    if not choice.statistics:
        raise ValueError(f"{setting} has no effect, since no logits are compared; leave it out")
    return choice._replace(statistics_memory_mb=float(value))
