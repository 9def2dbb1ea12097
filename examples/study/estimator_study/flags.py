"""The flags of a comparison, refused with a reason before anything is computed."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pydantic
import torch

import credit
from credit.backends.numpy.threads import count_threads
from estimator_study import tasks
from estimator_study.plan import BASELINE, PLANS, Plan, Settings

SUPPLIED = {*credit.TokenStatistics._fields, "progress"}  # what the study has for an estimator


def parse(description: str | None, arguments: list[str] | None = None) -> tuple[argparse.Namespace, Plan]:
    """The flags, and the plan that they ask for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--plan", default="reduced", choices=sorted(PLANS))
    parser.add_argument("--output", type=Path, help="folder of the records and the report; runs/study-PLAN")
    parser.add_argument(
        "--tasks",
        action="append",
        type=typed(read_tasks),
        help=f"in place of the plan's: sorting:6,brackets:8; known: {', '.join(tasks.TASKS)}",
    )
    parser.add_argument("--seeds", type=typed(read_count), help="seeds of every estimator on every task")
    parser.add_argument(
        "--estimators",
        type=typed(read_estimators),
        help='in place of the usual ones: {"grpo": {"name": "grpo"}, ...}',
    )
    parser.add_argument(
        "--settings",
        type=typed(read_object),
        help='of every run, e.g. {"steps": 50, "learning_rate": 0.0005}',
    )
    parser.add_argument(
        "--device",
        default="cpu",
        type=typed(read_device),
        help="cpu, or cuda: the runs of many seeds side by side",
    )
    parser.add_argument(
        "--workers", type=typed(read_count), help="processes; one per core on a CPU, 4 on one card"
    )
    parser.add_argument(
        "--time-limit", type=typed(read_seconds), help="seconds after which to stop, to be resumed"
    )
    own = parser.parse_args(arguments)
    try:
        plan = make_plan(own)
    except ValueError as error:
        parser.error(f"argument --settings: {explain(error)}")
    own.output = own.output or Path("runs") / f"study-{own.plan}"
    own.workers = own.workers or (4 if own.device.startswith("cuda") else count_threads())
    return own, plan


def make_plan(own: argparse.Namespace) -> Plan:
    """The named plan with what the flags replace in it."""
    plan = PLANS[own.plan]
    if own.tasks:
        cells = tuple(dict.fromkeys(cell for cells in own.tasks for cell in cells))
        plan = replace(plan, cells=cells)
    if own.seeds:
        plan = replace(plan, seeds=own.seeds)
    if own.estimators:
        plan = replace(plan, estimators=own.estimators)
    if own.settings:
        known = [field.name for field in fields(Settings)]
        unknown = [key for key in own.settings if key not in known]
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        plan = replace(plan, settings=Settings(**asdict(plan.settings) | own.settings))
    return plan


def read_tasks(text: str) -> list[tuple[str, int]]:
    """`sorting:6,brackets:8` as tasks with lengths."""
    found = []
    for part in text.split(","):
        task, _, length = part.strip().partition(":")
        if not length.strip().isdecimal():
            raise ValueError(
                f"{part!r} is not TASK:LENGTH, such as sorting:6; known tasks: {', '.join(tasks.TASKS)}"
            )
        tasks.check(task, int(length))
        found.append((task, int(length)))
    return found


def read_estimators(text: str) -> dict[str, dict[str, Any]]:
    """Estimators by the names that the report gives them, each of which the study can feed."""
    found = read_object(text)
    for name, value in found.items():
        try:
            needs = credit.parse(value).required_fields
        except ValueError as error:
            raise ValueError(f"{name!r}: {explain(error)}") from error
        lacking = [field for field in needs if field not in SUPPLIED]
        if lacking:
            raise ValueError(f"{name!r}: the study has no {', '.join(lacking)}")
    if BASELINE not in found:
        raise ValueError(f"{BASELINE!r} is missing, to which the others are compared")
    return found


def read_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON, {error}: {text}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"expected a JSON object with something in it, not {text}")
    return found


def read_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def read_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0.0:
        raise ValueError(f"expected seconds above 0, not {text!r}")
    return seconds


def read_device(text: str) -> str:
    """A device that torch has here: on any other, each unit would be recorded as failed."""
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"torch has no {text!r} here: {str(error).splitlines()[0]}") from error
    return text


def explain(error: ValueError) -> str:
    """The message in one line, of pydantic's without its links."""
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    told = [(".".join(map(str, wrong["loc"])), wrong["msg"]) for wrong in error.errors()]
    return "; ".join(f"{place}: {message}" if place else message for place, message in told)


def typed(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """As argparse calls it, which shows the messages of its own kind of error alone."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert
