"""Completions as columns for the page: one JSON object, and the numbers of all tokens as compressed bytes."""

import json
import zlib
from typing import Any

import numpy as np

from credit.lens.batches import split_batches
from credit.lens.completion import STATISTICS, Completion
from credit.lens.descriptions import complete_settings, default_settings, describe_estimators, redistributes
from credit.lens.extra import convert_value
from credit.lens.sources import Runs
from credit.schedule import Schedule

# The dtype of each column of tokens. Wider types come first, so that every column starts at a multiple of
# its item size, as JavaScript's typed arrays require.
DTYPES = {
    "token": "u4",
    **dict.fromkeys((*STATISTICS, "scores", "weights", "advantages"), "f4"),
    "turns": "i4",
    "mask": "u1",
}
PER_RESPONSE = (
    *("run", "batch", "step", "estimator", "row", "group", "reward", "rewards", "advantage", "valid"),
    *("prompt", "rule", "extra"),
)
NUMERIC_SETTINGS = ("tau", "kappa", "effective_fraction", "tau_min", "floor")
EXACT = 2**53  # up to which JavaScript has every whole number
NO_TURN = -(2**31)  # of the tokens of a row without turns, on a page where others have them
LARGEST = 1e300  # stands for an infinite tau, since JSON has no infinity


def pack(runs: Runs) -> tuple[dict[str, Any], bytes]:
    """What web/samples.js reads: an object `about`, and the columns of `about["fields"]` as zlib bytes.

    Numbers are float32, which holds exactly what the records hold if the training computed in float32.
    Texts, estimators and whatever else repeats are stored once, and rows refer to them by index.
    """
    tables = Tables()
    responses: dict[str, list[Any]] = {name: [] for name in PER_RESPONSE}
    start, columns = [0], {name: list[Any]() for name in DTYPES}
    batches = ((run, batch) for run, each in enumerate(runs.values()) for batch in split_batches(each))
    for number, (run, batch) in enumerate(batches):
        for completion in batch:
            response = _describe_response(completion, tables) | {"run": run, "batch": number}
            for name, value in response.items():
                responses[name].append(value)
            start.append(start[-1] + len(completion.tokens))
            pieces = [_index_of(tables.vocabulary, piece) for piece in completion.tokens]
            columns["token"].append(np.array(pieces, DTYPES["token"]))
            for name in list(DTYPES)[1:]:
                values = getattr(completion, name)
                # numpy turns a None among the values into NaN.
                columns[name].append(None if values is None else np.array(values, DTYPES[name]))
    joined = {name: _join_column(name, rows, start) for name, rows in columns.items()}
    present = {name: column for name, column in joined.items() if column is not None}
    fields = [[name, DTYPES[name]] for name in present]
    about = responses | tables.list_values() | {"runs": list(runs), "start": start, "fields": fields}
    return about, zlib.compress(b"".join(column.tobytes() for column in present.values()), 1)


class Tables:
    """What completions share: each table maps a value to its index, in order of first appearance."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}
        self.prompts: dict[str, int] = {}
        # Settings and objects of further fields as JSON texts, which can be keys.
        self.estimators: dict[str, int] = {}
        self.rules: dict[str, int] = {}
        self.extras: dict[str, int] = {}

    def list_values(self) -> dict[str, list[Any]]:
        """The values of each table by its name, the estimators in words."""
        return {
            "vocabulary": list(self.vocabulary),
            "prompts": list(self.prompts),
            "estimators": describe_estimators([json.loads(text) for text in self.estimators]),
            "rules": [json.loads(text) for text in self.rules],
            "extras": [json.loads(text) for text in self.extras],
        }


def _describe_response(completion: Completion, tables: Tables) -> dict[str, Any]:
    """The values of PER_RESPONSE, but for the run and the batch."""
    several = isinstance(completion.reward, list)
    further = completion.model_extra or {}
    extra = {name: _write_large(convert_value(name, value)) for name, value in further.items()}
    settings = complete_settings(completion.estimator)
    return completion.model_dump(include={"step", "row", "group", "valid"}) | {
        "advantage": convert_value("advantage", completion.advantage),
        "estimator": _index_of(tables.estimators, json.dumps(settings, sort_keys=True)),
        "reward": _total_reward(completion),
        "rewards": convert_value("reward", completion.reward) if several else None,
        "prompt": None if completion.prompt is None else _index_of(tables.prompts, completion.prompt),
        "rule": _index_of(tables.rules, json.dumps(_weight_rule(completion, settings))),
        "extra": _index_of(tables.extras, json.dumps(extra)),
    }


def _write_large(value: Any) -> Any:
    """The value with whole numbers beyond 2^53, whose last digits JavaScript loses, as text."""
    if isinstance(value, dict):
        return {name: _write_large(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_write_large(each) for each in value]
    return str(value) if isinstance(value, int) and abs(value) > EXACT else value


def _index_of(table: dict[Any, int], value: Any) -> int:
    return table.setdefault(value, len(table))


def _join_column(name: str, rows: list[Any], start: list[int]) -> Any:
    """One column of all rows, or None where no row has it; a row without it is NaN, its turns NO_TURN."""
    if not any(row is not None for row in rows) and name not in ("token", "mask"):
        return None
    dtype = f"<{DTYPES[name]}"
    result = np.full(start[-1], np.nan if "f" in dtype else NO_TURN if name == "turns" else 0, dtype)
    for first, row in zip(start, rows, strict=False):
        if row is not None:
            result[first : first + len(row)] = row
    return result


def _total_reward(completion: Completion) -> float | None:
    """The reward, or the sum of those that were given, as in the metrics; None if none counts."""
    rewards = convert_value("reward", completion.reward)  # of which other writers may have left NaN
    if not isinstance(rewards, list):
        return rewards
    known = [reward for reward in rewards if reward is not None]
    whole = len(known) == len(rewards)
    return sum(known) if whole or (known and completion.valid) else None


def _weight_rule(completion: Completion, settings: dict[str, Any]) -> dict[str, Any]:
    """How the page computes weights under other settings: the estimator's own rule, or else DGPO's."""
    own = redistributes(settings)
    settings = default_settings("dgpo") | (settings if own else {})
    rule = {name: _value_at_progress(settings[name], completion.progress) for name in NUMERIC_SETTINGS}
    kind = {"score": "recorded" if completion.scores is not None else "dgpo", "redistributes": own}
    return rule | kind | {name: settings[name] for name in ("negative", "within")}


def _value_at_progress(setting: Any, progress: float | None) -> float | None:
    """A recorded setting as a number: a schedule at the progress, and infinity, a string in JSON, capped."""
    if setting is None:
        return None
    if isinstance(setting, dict):
        return float(Schedule(**setting).at(np.asarray(progress or 0.0)))
    return min(float(setting), LARGEST)
