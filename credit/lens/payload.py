"""Completions as columns, packed for the page: an object of JSON, and the numbers of all tokens as bytes."""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from credit.estimators.dgpo import DGPO
from credit.lens.records import STATISTICS, Completion
from credit.schedule import Schedule

KINDS = {
    "token": "u4",
    **dict.fromkeys((*STATISTICS, "scores", "weights", "advantages"), "f4"),
    "turns": "i4",
    "mask": "u1",
}
"""The tokens' columns, the widest numbers first so that each starts where its kind may."""
NUMBERS = ("tau", "kappa", "effective_fraction", "tau_min", "floor")
LARGEST = 1e300  # for an infinite tau, since JSON has no infinity


def pack(completions: Iterable[Completion]) -> tuple[dict[str, Any], bytes]:
    """What the page reads (web/samples.js): `about`, and the compressed columns in the order of its `fields`.

    float32 throughout: what the records hold exactly if they were made of float32.
    """
    tables: Any = ({} for _ in range(4))  # values by their first appearance
    vocabulary, prompts, rules, estimators = tables
    names = ("batch", "step", "row", "group", "reward", "advantage", "valid", "prompt", "rule")
    about: dict[str, Any] = {"start": [0]} | {name: [] for name in names}
    columns: dict[str, list[Any]] = {name: [] for name in KINDS}
    batch, previous = 0, -1
    for line in completions:
        batch, previous = batch + (line.row <= previous), line.row
        _index_of(estimators, _describe_estimator(line))
        own = line.model_dump(include={"step", "row", "group", "advantage", "valid"})
        own |= {
            "batch": batch,
            "reward": _total_reward(line),
            "rule": _index_of(rules, tuple(_weight_rule(line).items())),
        }
        own["prompt"] = None if line.prompt is None else _index_of(prompts, line.prompt)
        for name in names:
            about[name].append(own[name])
        about["start"].append(about["start"][-1] + len(line.tokens))
        columns["token"].append(np.array([_index_of(vocabulary, piece) for piece in line.tokens], "u4"))
        for name in list(KINDS)[1:]:
            values = getattr(line, name)
            columns[name].append(None if values is None else np.array(values, KINDS[name]))  # None is NaN
    packed = {name: _join_column(name, rows, about["start"]) for name, rows in columns.items()}
    present = {name: column for name, column in packed.items() if column is not None}
    about["fields"] = [[name, KINDS[name]] for name in present]
    about |= {"vocabulary": list(vocabulary), "prompts": list(prompts)}
    about |= {"rules": [dict(rule) for rule in rules], "estimators": list(estimators)}
    return about, zlib.compress(b"".join(column.tobytes() for column in present.values()), 1)


def _index_of(known: dict[Any, int], value: Any) -> int:
    return known.setdefault(value, len(known))


def _join_column(name: str, rows: list[Any], start: list[int]) -> Any:
    """One column of all rows; NaN (or 0) for a row without it, None where no row has it."""
    if not any(row is not None for row in rows) and name not in ("token", "mask"):
        return None
    kind = f"<{KINDS[name]}"
    result = np.full(start[-1], np.nan if "f" in kind else 0, kind)
    for first, row in zip(start, rows, strict=False):
        if row is not None:
            result[first : first + len(row)] = row
    return result


def _total_reward(line: Completion) -> float | None:
    """One number; the sum of several, as in the metrics."""
    if not isinstance(line.reward, list):
        return line.reward
    return None if None in line.reward else sum(r for r in line.reward if r is not None)


def _weight_rule(line: Completion) -> dict[str, Any]:
    """How the page weighs under other settings: the estimator's own rule, or DGPO's where it has none."""
    own = "effective_fraction" in line.estimator
    settings: dict[str, Any] = DGPO().model_dump() | (line.estimator if own else {})
    rule = {name: _value_at_progress(settings[name], line.progress) for name in NUMBERS}
    kind = {"score": "recorded" if line.scores is not None else "dgpo"}
    return rule | kind | {name: settings[name] for name in ("negative", "within")}


def _value_at_progress(setting: Any, progress: float | None) -> float | None:
    """A setting as a number: a schedule's at its progress; infinity comes as a string."""
    if setting is None:
        return None
    if isinstance(setting, dict):
        return float(Schedule(**setting).at(np.asarray(progress or 0.0)))
    return min(float(setting), LARGEST)


def _describe_estimator(line: Completion) -> str:
    """The estimator's name with the settings that redistribute."""
    rule = _weight_rule(line)
    shown = ("tau", "kappa") if rule["effective_fraction"] is None else ("effective_fraction", "kappa")
    settings = [f"{name}={rule[name]:g}" for name in shown if name in line.estimator]
    name = str(line.estimator.get("name"))
    return f"{name}({', '.join(settings)})" if "effective_fraction" in line.estimator else name
