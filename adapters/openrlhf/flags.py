"""OpenRLHF's command line with credit's estimators, and a flag --credit.* for each of their settings."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from openrlhf.utils.config import hierarchize

import credit
from credit.adapters.openrlhf import options, plugins, whitening, without_effect
from credit.adapters.openrlhf.settings import PREFIX, Choice, parse_settings
from credit.estimators.presets import PRESETS
from credit.estimators.registry import estimator_classes

ESTIMATOR = "--algo.advantage.estimator"


def with_credit_flags(
    parse_args: Callable[..., Any], chosen: Callable[[Sequence[str]], None]
) -> Callable[..., Any]:
    """ArgumentParser.parse_args that adds credit's flags to every parser with OpenRLHF's estimator flag.

    The attribute `credit` of what it returns is a Choice, or None for an estimator of OpenRLHF's own.
    `chosen` is called with the names of the plugins' modules if the estimator is one of credit's. Settings
    that cannot work end the program here, before Ray starts.
    """

    @wraps(parse_args)
    def parse(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        action = parser._option_string_actions.get(ESTIMATOR)
        if action is None:
            return parse_args(parser, args, namespace)
        try:
            modules = _load_plugins(args)
            names = _extend_parser(parser, action)
            parsed = parse_args(parser, args, namespace)
            parsed.credit = _parse_choice(parser, parsed, names)
        except ValueError as error:
            parser.error(str(error))
        if parsed.credit is not None:
            chosen(modules)
        return parsed

    return parse


def flag_names(taken: Any) -> dict[str, str]:
    """credit's estimators by the names that users give: credit_<name> if OpenRLHF has an estimator <name>."""
    return {PREFIX + name if name in taken else name: name for name in credit.names()}


def _load_plugins(args: Any) -> list[str]:
    """Imports what defines estimators, which then become choices; the modules' names."""
    early = argparse.ArgumentParser(add_help=False)  # which takes a shortened flag, as OpenRLHF's parser
    _add_plugin(early)
    return [plugins.load(value) for value in early.parse_known_args(args)[0].plugin]


def _extend_parser(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, str]:
    names = flag_names(list(action.choices or ()))
    action.choices = [*(action.choices or ()), *names]
    _add_plugin(parser)
    _add_flag(parser, "reference", "checkpoint of the reference; default: the actor's (LoRA: its base)")
    _add_flag(parser, "preset", f"constants of a framework: {', '.join(sorted(PRESETS))}")
    _add_flag(parser, "record_steps", "records completions for credit.lens every so many steps", int)
    _add_flag(
        parser, "record_completions", "completions per record at most, in whole groups; default: 16", int
    )
    _add_flag(parser, "record_path", "the file for them; default: credit.jsonl in --ckpt.output_dir")
    for setting, owners in _list_settings().items():
        _add_flag(parser, setting, "; ".join(f"{name}: {default}" for name, default in owners.items()))
    return names


def _add_plugin(parser: argparse.ArgumentParser) -> None:
    explanation = "files (.py) or modules that define estimators of your own; every node of Ray needs them"
    parser.add_argument(
        plugins.FLAG, dest="plugin", nargs="+", action="extend", default=[], metavar="FILE", help=explanation
    )


class StoreOnce(argparse.Action):
    """A flag that is an error where it is given twice, since the first value would be lost."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            parser.error(f"{option_string} is given twice, {getattr(namespace, self.dest)} and {values}")
        setattr(namespace, self.dest, values)


def _add_flag(
    parser: argparse.ArgumentParser, name: str, explanation: str, kind: Callable[[str], Any] = str
) -> None:
    parser.add_argument(
        f"--credit.{name}",
        action=StoreOnce,
        type=kind,
        metavar="VALUE",
        default=argparse.SUPPRESS,
        help=explanation.replace("%", "%%"),
    )


def _list_settings() -> dict[str, dict[str, Any]]:
    """Every setting of the estimators, with its default in each; the loss is set by OpenRLHF's own flags."""
    found: dict[str, dict[str, Any]] = {}
    for name, kind in sorted(estimator_classes().items()):
        for setting, field in kind.model_fields.items():
            if setting not in ("name", "loss"):
                default = "required" if field.is_required() else field.default
                found.setdefault(setting, {})[name] = default
    return found


def _parse_choice(
    parser: argparse.ArgumentParser, parsed: argparse.Namespace, names: Mapping[str, str]
) -> Choice | None:
    """Takes credit's flags out of the parsed ones; raises ValueError if they cannot work."""
    del parsed.plugin
    given = {name: vars(parsed).pop(name) for name in list(vars(parsed)) if name.startswith("credit.")}
    name = getattr(parsed, ESTIMATOR.removeprefix("--"))
    if name not in names:
        if given:
            raise ValueError(
                f"--{min(given)} is set, but {ESTIMATOR} {name} is not one of credit's; set one of "
                f"{', '.join(names)}, or leave --credit.* out"
            )
        return None
    settings = {flag.removeprefix("credit."): value for flag, value in given.items()}
    choice = parse_settings(names[name], settings)
    changed = without_effect.list_given(vars(parsed), {a.dest: a.default for a in parser._actions})
    plain = {flag: value for flag, value in settings.items() if flag != "preset"}
    if plain != settings and parse_settings(names[name], plain) == choice:
        changed |= {"credit.preset"}
    if vars(parsed)[whitening.FLAG.removeprefix("--")]:
        preset = "preset" in settings and "whiten_correction" not in settings
        estimator = whitening.leave_undivided(choice.estimator, preset=preset)
        choice = choice._replace(estimator=estimator)
    if choice.trains_critic:
        setattr(parsed, ESTIMATOR.removeprefix("--"), "gae")  # with which alone OpenRLHF trains a critic
    args = hierarchize(parsed)
    options.refuse(choice, args)
    without_effect.refuse(choice, args, changed)
    options.report_differences(choice, args)
    without_effect.report(choice, args, changed)
    return choice
