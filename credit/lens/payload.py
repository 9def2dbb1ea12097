"""Completions as columns for the page: one JSON object, and the numbers of all tokens as compressed bytes."""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from credit.estimators.dgpo import DGPO
from credit.lens.completion import STATISTICS, Completion
from credit.schedule import Schedule

# The dtype of each column of tokens. Wider types come first, so that every column starts at a multiple of
# its item size, as JavaScript's typed arrays require.
DTYPES = {
    "token": "u4",
    **dict.fromkeys((*STATISTICS, "scores", "weights", "advantages"), "f4"),
    "turns": "i4",
    "mask": "u1",
}
PER_RESPONSE = ("batch", "step", "row", "group", "reward", "advantage", "valid", "prompt", "rule")
NUMERIC_SETTINGS = ("tau", "kappa", "effective_fraction", "tau_min", "floor")
LARGEST = 1e300  # stands for an infinite tau, since JSON has no infinity


def pack(completions: Iterable[Completion]) -> tuple[dict[str, Any], bytes]:
    """What web/samples.js reads: an object `about`, and the columns of `about["fields"]` as zlib bytes.

    Numbers are float32, which holds exactly what the records hold if the training computed in float32.
    Token texts, prompts, weight rules and estimators are stored once, and rows refer to them by index.
    """
    tables: Any = ({} for _ in range(4))  # each maps a value to its index, in order of first appearance
    vocabulary, prompts, rules, estimators = tables
    about: dict[str, Any] = {"start": [0]} | {name: [] for name in PER_RESPONSE}
    columns: dict[str, list[Any]] = {name: [] for name in DTYPES}
    batch, previous_row = 0, -1
    for completion in completions:
        # Row numbers grow within a batch, so a smaller one starts the next batch.
        batch, previous_row = batch + (completion.row <= previous_row), completion.row
        _index_of(estimators, _describe_estimator(completion))
        response = completion.model_dump(include={"step", "row", "group", "advantage", "valid"})
        response |= {
            "batch": batch,
            "reward": _total_reward(completion),
            "rule": _index_of(rules, tuple(_weight_rule(completion).items())),
            "prompt": None if completion.prompt is None else _index_of(prompts, completion.prompt),
        }
        for name in PER_RESPONSE:
            about[name].append(response[name])
        about["start"].append(about["start"][-1] + len(completion.tokens))
        pieces = [_index_of(vocabulary, piece) for piece in completion.tokens]
        columns["token"].append(np.array(pieces, DTYPES["token"]))
        for name in list(DTYPES)[1:]:
            values = getattr(completion, name)
            # numpy turns a None among the values into NaN.
            columns[name].append(None if values is None else np.array(values, DTYPES[name]))
    joined = {name: _join_column(name, rows, about["start"]) for name, rows in columns.items()}
    present = {name: column for name, column in joined.items() if column is not None}
    about["fields"] = [[name, DTYPES[name]] for name in present]
    about |= {"vocabulary": list(vocabulary), "prompts": list(prompts)}
    about |= {"rules": [dict(rule) for rule in rules], "estimators": list(estimators)}
    return about, zlib.compress(b"".join(column.tobytes() for column in present.values()), 1)


def _index_of(table: dict[Any, int], value: Any) -> int:
    return table.setdefault(value, len(table))


def _join_column(name: str, rows: list[Any], start: list[int]) -> Any:
    """One column of all rows, or None where no row has it; a row without it becomes NaN (integers: 0)."""
    if not any(row is not None for row in rows) and name not in ("token", "mask"):
        return None
    dtype = f"<{DTYPES[name]}"
    result = np.full(start[-1], np.nan if "f" in dtype else 0, dtype)
    for first, row in zip(start, rows, strict=False):
        if row is not None:
            result[first : first + len(row)] = row
    return result


def _total_reward(completion: Completion) -> float | None:
    """The reward, or the sum of those that were given, as in the metrics; None if none counts."""
    if not isinstance(completion.reward, list):
        return completion.reward
    known = [reward for reward in completion.reward if reward is not None]
    whole = len(known) == len(completion.reward)
    return sum(known) if whole or (known and completion.valid) else None


def _weight_rule(completion: Completion) -> dict[str, Any]:
    """How the page computes weights under other settings: the estimator's own rule, or else DGPO's."""
    redistributes = "effective_fraction" in completion.estimator
    settings: dict[str, Any] = DGPO().model_dump() | (completion.estimator if redistributes else {})
    rule = {name: _value_at_progress(settings[name], completion.progress) for name in NUMERIC_SETTINGS}
    score = {"score": "recorded" if completion.scores is not None else "dgpo"}
    return rule | score | {name: settings[name] for name in ("negative", "within")}


def _value_at_progress(setting: Any, progress: float | None) -> float | None:
    """A recorded setting as a number: a schedule at the progress, and infinity, a string in JSON, capped."""
    if setting is None:
        return None
    if isinstance(setting, dict):
        return float(Schedule(**setting).at(np.asarray(progress or 0.0)))
    return min(float(setting), LARGEST)


def _describe_estimator(completion: Completion) -> str:
    """The estimator's name with the settings by which it redistributes."""
    rule = _weight_rule(completion)
    shown = ("tau", "kappa") if rule["effective_fraction"] is None else ("effective_fraction", "kappa")
    settings = [f"{name}={rule[name]:g}" for name in shown if name in completion.estimator]
    base = completion.estimator.get("base")
    settings += [f"base={base['name']}"] if base else []
    name = str(completion.estimator.get("name"))
    return f"{name}({', '.join(settings)})" if "effective_fraction" in completion.estimator else name
