"""All that a study found: tables and sentences that follow the intervals."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from estimator_study.comparing import Interval, compare
from estimator_study.plan import BASELINE
from estimator_study.runs import DESCRIPTIONS, MEASURES, Run, measured

Intervals = dict[str, dict[str, Interval | None]]  # measure -> estimator -> difference


@dataclass(frozen=True)
class Findings:
    """A study's runs and their comparisons with a baseline."""

    runs: list[Run]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(run.estimator for run in self.runs))

    @property
    def cells(self) -> list[tuple[str, int]]:
        return sorted({run.cell for run in self.runs})

    def of(self, estimator: str) -> list[Run]:
        return [run for run in self.runs if run.estimator == estimator]

    def mean(self, estimator: str, name: str) -> float | None:
        """Mean over tasks of the mean over seeds."""
        measure = (MEASURES | DESCRIPTIONS)[name]
        by_cell: dict[tuple[str, int], list[float]] = {}
        for run in self.of(estimator):
            value = measured(run, measure)
            if value is not None:
                by_cell.setdefault(run.cell, []).append(value)
        return fmean(fmean(values) for values in by_cell.values()) if by_cell else None

    def against(self, baseline: str, cell: tuple[str, int] | None = None) -> Intervals:
        """Every other estimator against the baseline, over all tasks or on one."""
        runs = [run for run in self.runs if cell in (None, run.cell)]
        others = [name for name in self.names if name != baseline]
        return {
            key: {name: compare(runs, name, baseline, measure) for name in others}
            for key, measure in MEASURES.items()
        }

    def comparisons(self) -> dict[str, Any]:
        """Every interval, as JSON has it: baseline -> tasks -> measure -> estimator."""
        return {
            baseline: {
                where: _intervals_as_json(self.against(baseline, cell)) for where, cell in self._places()
            }
            for baseline in (BASELINE, "dapo")
            if baseline in self.names
        }

    def numbers(self) -> list[dict[str, Any]]:
        """Every run with its measures, as JSON has it."""
        return [_run_as_json(run) for run in self.runs]

    def _places(self) -> Iterator[tuple[str, tuple[str, int] | None]]:
        yield "all tasks", None
        for task, length in self.cells:
            yield f"{task} {length}", (task, length)


def _intervals_as_json(found: Intervals) -> dict[str, Any]:
    return {
        key: {name: interval.as_json() if interval else None for name, interval in intervals.items()}
        for key, intervals in found.items()
    }


def _run_as_json(run: Run) -> dict[str, Any]:
    numbers = {key: measured(run, measure) for key, measure in (MEASURES | DESCRIPTIONS).items()}
    named = {"task": run.task, "length": run.length, "seed": run.seed, "estimator": run.estimator}
    return (
        named
        | {"state": run.state, "failed": run.failed, "warm_up": run.warm_up}
        | {key: None if number is None else float(f"{number:.5g}") for key, number in numbers.items()}
    )
