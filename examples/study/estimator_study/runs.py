"""The recorded runs, and the numbers that each comes down to."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from estimator_study import journal
from estimator_study.training import Record


@dataclass(eq=False)
class Run:
    """One estimator on one task from one warm-up checkpoint."""

    task: str
    length: int
    seed: int
    estimator: str
    settings: dict[str, Any]  # of the estimator
    failed: str | None = None
    warm_up: Record = field(default_factory=dict)
    steps: list[Record] = field(default_factory=list)
    evaluations: list[Record] = field(default_factory=list)
    finished: bool = False
    numbers: dict[str, float | None] | None = None  # in place of steps and evaluations, from runs.json

    @property
    def cell(self) -> tuple[str, int]:
        return self.task, self.length

    @property
    def state(self) -> str:
        return "failed" if self.failed else "finished" if self.finished else "not finished"

    @property
    def norms(self) -> list[float]:
        return [norm for step in self.steps for norm in step["gradient_norms"]]


class Measure(NamedTuple):
    """A number per run, and how two runs are compared by it: by difference, or by logarithm of the ratio."""

    label: str
    of: Callable[[Run], float | None]
    by_ratio: bool = False


def _last(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.evaluations[-1][name]


def _mean(name: str) -> Callable[[Run], float | None]:
    return lambda run: fmean(step[name] for step in run.steps)


def _variance(run: Run) -> float:
    return float(np.var(run.norms, ddof=1))


def _relative_variance(run: Run) -> float:
    return _variance(run) / float(np.mean(run.norms)) ** 2


MEASURES = {
    "accuracy": Measure("accuracy", _last("accuracy")),
    "best_of_k": Measure("best of k", _last("best_of_k")),
    "accuracy_over_training": Measure(
        "accuracy, mean over training",
        lambda run: fmean(evaluation["accuracy"] for evaluation in run.evaluations[1:]),
    ),
    "gradient_norm_variance": Measure("variance of the gradient norm", _variance, by_ratio=True),
    "relative_gradient_norm_variance": Measure(
        "variance of the gradient norm / its mean²", _relative_variance, by_ratio=True
    ),
    "entropy": Measure("entropy (nats)", _last("entropy")),
    "diversity": Measure("diversity of right answers", _last("diversity")),
}
# The raw variance grows with the norm's own scale: it is recorded, and left out of the table and its tests.
TESTED = [key for key in MEASURES if key != "gradient_norm_variance"]
DESCRIPTIONS = {
    "effective_token_fraction": Measure("effective token fraction", _mean("effective_token_fraction")),
    "weight_std": Measure("std of the weights", _mean("weight_std")),
    "deviation": Measure("deviation", _mean("deviation")),
}


ALL_MEASURES = MEASURES | DESCRIPTIONS


def load(folder: Path) -> list[Run]:
    """Every run, failed and unfinished ones included; from runs.json where no journals are left."""
    journals = sorted(folder.glob("*.jsonl"))
    summed_up = folder / "runs.json"
    if journals or not summed_up.exists():
        return [run for path in journals for run in _of_file(path)]
    try:
        return [_of_numbers(entry) for entry in json.loads(summed_up.read_text())]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise journal.Unusable(f"{summed_up} does not hold a study's runs: {error!r}") from error


@cache
def measured(run: Run, key: str) -> float | None:
    """The number of a run that ended; None if it failed, is not finished, or the measure has no value."""
    if run.state != "finished":
        return None
    measure = ALL_MEASURES[key]
    value = measure.of(run) if run.numbers is None else run.numbers.get(key)
    wrong = value is None or not math.isfinite(value) or (measure.by_ratio and value <= 0.0)
    return None if wrong else value


def _of_numbers(entry: Record) -> Run:
    """A run of which only the measures are left."""
    numbers = {key: entry[key] for key in ALL_MEASURES if key in entry}
    named = (entry[key] for key in ("task", "length", "seed", "estimator"))
    finished = entry["state"] == "finished"
    return Run(*named, {}, entry["failed"], entry["warm_up"], finished=finished, numbers=numbers)


def _of_file(path: Path) -> Iterator[Run]:
    records = journal.read(path)
    if not records:
        return
    unit = records[0]
    runs = {
        (seed, name): Run(unit["task"], unit["length"], seed, name, settings)
        for seed in unit["seeds"]
        for name, settings in unit["estimators"].items()
    }
    for record in records[1:]:
        if "finished" in record:
            for run in runs.values():
                run.finished = True
            continue
        run = runs[record["seed"], record["estimator"]]
        run.failed = record.get("failed", run.failed)
        run.warm_up = record.get("warm_up", run.warm_up)
        if "step" in record:
            run.steps.append(record)
        if "evaluated" in record:
            run.evaluations.append(record)
    yield from runs.values()
