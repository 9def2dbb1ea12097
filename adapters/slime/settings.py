"""From slime's arguments to an estimator: the name of the function, and `credit` of --custom-config-path."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

import credit
from credit.adapters.record_settings import check_record_settings
from credit.adapters.slime.hooks import FRAMEWORK, OPTIONS
from credit.settings import Settings

PACKAGE = "credit.adapters.slime"
ANY = "advantages"  # the function whose estimator is named in the file


class AdapterSettings(Settings):
    """Settings of the adapter's own, which stand in `credit` beside the estimator's."""

    statistics_memory_mb: float | None = Field(default=None, gt=0)
    """Megabytes (10^6 bytes) that tiles of logits may take when tokens are scored.

    None: a quarter of what is free on a GPU, 256 elsewhere.
    """
    record_steps: int | None = None
    """Completions are written with the credit of each token every so many rollouts; None: never."""
    record_completions: int = 16
    """Completions per write at most, in whole groups; one group at least."""
    record_path: str | None = None
    """The file for them, JSON lines; None: credit.jsonl in --save."""

    @model_validator(mode="before")
    @classmethod
    def _check_records(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        check_record_settings(given)
        return given


def read_estimator(args: Any) -> credit.Estimator:
    """The estimator that --custom-advantage-function-path names, with the settings in `args.credit`.

    Raises:
        ValueError: an unknown name or setting, or a wrong value; or `credit` names another estimator.
    """
    settings, _ = _split_mapping(args)
    named = find_name(args)
    if named == ANY:
        if "name" not in settings:
            raise ValueError(
                f"--custom-advantage-function-path {PACKAGE}.{ANY} takes the estimator's name from `credit` "
                "in the file of --custom-config-path, and there is none; add `credit: {name: dgpo}`, or put "
                f"the name into the path, as in {PACKAGE}.dgpo"
            )
        return credit.parse(settings)
    if settings.setdefault("name", named) != named:
        raise ValueError(
            f"--custom-advantage-function-path names {named}, and `credit` in the file of "
            f"--custom-config-path {settings['name']}; leave the name out there"
        )
    return credit.parse(settings)


def read_own(args: Any) -> AdapterSettings:
    """The adapter's settings in `args.credit`."""
    _, own = _split_mapping(args)
    return AdapterSettings(**own)


def find_name(args: Any) -> str:
    """The name that follows the package in --custom-advantage-function-path."""
    path = str(args.custom_advantage_function_path)
    package, _, name = path.rpartition(".")
    if package != PACKAGE:
        raise ValueError(
            f"--custom-advantage-function-path is {path}, so that slime would train with other advantages; "
            f"set it to one of credit's functions, such as {PACKAGE}.dgpo, for all processes and not for a "
            "role of --megatron-config-path alone. For an estimator of your own, take all functions from one "
            f"{PACKAGE}.Hooks"
        )
    return name


def refuse_two_choices(args: Any) -> None:
    """Raises ValueError for arguments that do not go with an object whose estimator is given."""
    if args.custom_advantage_function_path is None:
        raise ValueError(
            "--custom-advantage-function-path is not set, so that slime would train with its own advantages; "
            "name the `advantages` of the same Hooks"
        )
    given = getattr(args, "credit", None)
    if given:
        raise ValueError(
            f"`credit` in the file of --custom-config-path is {given}, and these Hooks were given an "
            "estimator; leave one of the two out"
        )


def refuse_missing_options(args: Any) -> None:
    """Raises ValueError unless slime's parser knows the options that this adapter reads."""
    missing = [name for name in OPTIONS.split() if not hasattr(args, name)]
    if missing:
        raise ValueError(
            f"slime's arguments have no {', '.join(missing)}; credit supports slime {FRAMEWORK.supported}"
        )


def _split_mapping(args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the estimator and those of the adapter, by name."""
    given = getattr(args, "credit", None) or {}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"`credit` in the file of --custom-config-path is {given!r}; expected settings by name"
        )
    own = {name: value for name, value in given.items() if name in AdapterSettings.model_fields}
    return {name: value for name, value in given.items() if name not in own}, own
