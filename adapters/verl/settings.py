"""From verl's config to an estimator: algorithm.adv_estimator and algorithm.credit.*"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import credit
from credit.adapters import fields, rules, traits
from credit.adapters.record_settings import check_record_settings
from credit.adapters.verl import rewards
from credit.adapters.verl.hooks import FRAMEWORK
from credit.adapters.verl.rewards import TokenRewards

PREFIX = FRAMEWORK.prefix
Divergence = Literal["exact", "binary"]
Source = Literal["none", "workers", "passes"]
RECORDS = ("record_steps", "record_completions", "record_path")


class Choice(NamedTuple):
    """An estimator, where its deviation, rewards and statistics come from, and what is recorded."""

    estimator: credit.Estimator
    divergence: Divergence = "exact"
    token_rewards: TokenRewards = "token_level_rewards"
    reward_keys: tuple[str, ...] = ()
    source: Source = "none"
    statistics_memory_mb: float | None = None  # for tiles of logits; None: what `find_budget` finds
    record_steps: int | None = None  # completions are recorded every so many steps; None: never
    record_completions: int = 16  # at most, in whole groups
    record_path: str | None = None  # None: credit.jsonl in trainer.default_local_dir

    @property
    def statistics(self) -> tuple[str, ...]:
        """The token statistics that the estimator reads."""
        return fields.needed_statistics(self.estimator)

    @property
    def handed(self) -> tuple[str, ...]:
        """The token statistics that the estimator gets: also those that a metric is computed from."""
        return tuple(dict.fromkeys((*self.statistics, *fields.list_compared(self.estimator))))

    def list_scored(self, recording: bool) -> tuple[str, ...]:
        """What the workers compute: also what is logged or recorded, but for the entropy, which verl has."""
        logged = (name for name in fields.add_logged(self.statistics) if name != "extra.entropy")
        shown = fields.list_shown(self.estimator) if recording else ()
        return tuple(dict.fromkeys((*self.handed, *logged, *shown)))

    def is_recording_step(self, step: int) -> bool:
        """Whether the step is one of 1, 1 + record_steps, 1 + 2 record_steps, ...; verl counts from 1."""
        return self.record_steps is not None and (step - 1) % self.record_steps == 0

    @property
    def reference(self) -> bool:
        """Whether a reference model has to run."""
        return fields.needs_reference(self.estimator)


def is_ours(name: Any) -> bool:
    """Whether an adv_estimator is one of credit's."""
    return str(name).startswith(PREFIX)


def parse_settings(algorithm: Any) -> Choice:
    """The estimator that verl's `algorithm` section names, with the settings under `algorithm.credit`.

    Raises:
        ValueError: an unknown estimator or setting, or a wrong value, of which the known ones are listed; or
            options about rewards that cannot go together.
    """
    settings = _read_settings(algorithm)
    divergence = _take(settings, "divergence", Divergence)
    token_rewards = _take(settings, "token_rewards", TokenRewards)
    memory_mb = settings.pop("statistics_memory_mb", None)
    records = {name: settings.pop(name, None) for name in RECORDS}
    check_record_settings(records, "algorithm.credit.")
    if "name" in settings:
        raise ValueError("algorithm.credit.name is not used; the name goes to algorithm.adv_estimator")
    name = str(algorithm.get("adv_estimator"))
    if name.removeprefix(PREFIX) not in credit.names():
        raise ValueError(f"unknown estimator {name!r}; known: {list_names()}")
    estimator = credit.parse({"name": name.removeprefix(PREFIX), **settings})
    if divergence == "binary" and "deviation" not in estimator.required_fields:
        raise ValueError(f"algorithm.credit.divergence=binary has no effect with {name}; leave it out")
    if token_rewards == "token_level_rewards":
        estimator = rewards.read_tokens(estimator)
    rewards.refuse_token_rewards(estimator, algorithm, token_rewards)
    estimator, keys = rewards.name_rewards(estimator, algorithm)
    recorded = {setting: value for setting, value in records.items() if value is not None}
    choice = Choice(estimator, divergence, token_rewards, keys, **recorded)
    return choice if memory_mb is None else _set_memory(choice, memory_mb)


def list_names() -> str:
    """The names by which verl's users choose credit's estimators."""
    return ", ".join(PREFIX + name for name in credit.names())


def is_misnamed(algorithm: Any, known: Mapping[str, Any]) -> bool:
    """Whether adv_estimator is a name of credit's without the prefix, and none that verl knows."""
    name = str(algorithm.get("adv_estimator"))
    return name in credit.names() and name not in known


def refuse_misplaced_settings(algorithm: Any, known: Mapping[str, Any]) -> None:
    """Raises ValueError if a config that names no estimator of credit was meant to do so."""
    name = str(algorithm.get("adv_estimator"))
    if is_misnamed(algorithm, known):
        raise ValueError(
            f"verl has no estimator {name!r}; credit's is algorithm.adv_estimator={PREFIX}{name}"
        )
    if _read_settings(algorithm):
        raise ValueError(
            f"algorithm.credit is set, but algorithm.adv_estimator={name} is not one of credit's; set "
            f"one of {list_names()}, or leave algorithm.credit out"
        )


def refuse_without_effect(estimator: credit.Estimator, algorithm: Any) -> None:
    """Refuses options of `algorithm` by which verl would change rewards and advantages itself."""
    name = FRAMEWORK.name_of(estimator)
    if not algorithm.get("norm_adv_by_std_in_grpo", True):
        raise rules.no_effect_error(
            "algorithm.norm_adv_by_std_in_grpo=False",
            name,
            "says itself whether rewards are scaled",
            f"leave it out ({PREFIX}dr_grpo does not scale)",
        )
    for option, noun in {"gamma": "discount", "lam": "lambda"}.items():
        value = algorithm.get(option, 1.0)
        if value != 1:
            own = any(hasattr(part.estimator, option) for part in traits.list_parts(estimator))
            place = f"+algorithm.credit.{option}" if hasattr(estimator, option) else f"a part's {option}"
            way_out = f"set {place}={value:g} instead" if own else "leave it out"
            reason = f"has a {noun} of its own" if own else f"has no {noun}"
            raise rules.no_effect_error(f"algorithm.{option}={value:g}", name, reason, way_out)


def _take(settings: dict[str, Any], name: str, allowed: Any) -> Any:
    """Takes a setting of the adapter's own, one of the allowed words, of which the first is the default."""
    words = get_args(allowed)
    value = settings.pop(name, words[0])
    if value not in words:
        raise ValueError(f"algorithm.credit.{name} is {value!r}; expected {' or '.join(words)}")
    return value


def _set_memory(choice: Choice, value: Any) -> Choice:
    """The choice with that many megabytes, a positive number, if tiles of logits are made at all."""
    setting = f"algorithm.credit.statistics_memory_mb={value}"
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{setting}; expected a positive number")
    if choice.divergence == "binary" or not choice.statistics:
        raise ValueError(f"{setting} has no effect, since no logits are compared; leave it out")
    return choice._replace(statistics_memory_mb=float(value))


def _read_settings(algorithm: Any) -> dict[str, Any]:
    settings = algorithm.get("credit")
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"algorithm.credit is {settings!r}; expected settings such as +algorithm.credit.tau=0.1"
        )
    return dict(settings)
