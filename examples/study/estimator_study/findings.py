"""All that a study found: comparisons of all measures, corrected for their number."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from estimator_study.comparing import Difference, compare, correct
from estimator_study.plan import BASELINE
from estimator_study.runs import ALL_MEASURES, MEASURES, TESTED, Run, measured

Differences = dict[str, dict[str, Difference | None]]  # measure -> estimator -> difference
Cell = tuple[str, int]  # task and length


@dataclass(frozen=True, eq=False)
class Findings:
    """A study's runs and their comparisons with a baseline."""

    runs: list[Run]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(run.estimator for run in self.runs))

    @property
    def cells(self) -> list[Cell]:
        return sorted({run.cell for run in self.runs})

    @property
    def missing(self) -> list[str]:
        """Measures of which runs.json, where the journals are gone, says nothing."""
        known = [run.numbers for run in self.runs if run.numbers is not None]
        return [key for key in ALL_MEASURES if known and all(key not in numbers for numbers in known)]

    def of(self, estimator: str) -> list[Run]:
        return [run for run in self.runs if run.estimator == estimator]

    def mean(self, estimator: str, key: str) -> float | None:
        """Mean over tasks of the mean over seeds."""
        by_cell: dict[Cell, list[float]] = {}
        for run in self.of(estimator):
            value = measured(run, key)
            if value is not None:
                by_cell.setdefault(run.cell, []).append(value)
        return fmean(fmean(values) for values in by_cell.values()) if by_cell else None

    def against(self, baseline: str, cell: Cell | None = None) -> Differences:
        """Every other estimator against the baseline, over all tasks or on one.

        P values are corrected for all differences of the tested measures that are given here.
        """
        return _compare_all(self, baseline, cell)

    def comparisons(self) -> dict[str, Any]:
        """Every difference, as JSON has it: baseline -> tasks -> measure -> estimator."""
        return {
            baseline: {
                where: _differences_as_json(self.against(baseline, cell)) for where, cell in self._places()
            }
            for baseline in (BASELINE, "dapo")
            if baseline in self.names
        }

    def numbers(self) -> list[dict[str, Any]]:
        """Every run with its measures, as JSON has it."""
        return [_run_as_json(run) for run in self.runs]

    def states(self) -> Counter[str]:
        return Counter(run.state for run in self.runs)

    def _places(self) -> Iterator[tuple[str, Cell | None]]:
        yield "all tasks", None
        for task, length in self.cells:
            yield f"{task} {length}", (task, length)


@cache  # table, sentences, pictures and JSON ask for the same
def _compare_all(findings: Findings, baseline: str, cell: Cell | None) -> Differences:
    runs = [run for run in findings.runs if cell in (None, run.cell)]
    others = [name for name in findings.names if name != baseline]
    found = {key: {name: compare(runs, name, baseline, key) for name in others} for key in MEASURES}
    tested = {
        (key, name): difference for key in TESTED for name, difference in found[key].items() if difference
    }
    for (key, name), difference in zip(tested, correct(list(tested.values())), strict=True):
        found[key][name] = difference
    return found


def _differences_as_json(found: Differences) -> dict[str, Any]:
    return {
        key: {name: difference.as_json() if difference else None for name, difference in of_measure.items()}
        for key, of_measure in found.items()
    }


def _run_as_json(run: Run) -> dict[str, Any]:
    numbers = {key: measured(run, key) for key in ALL_MEASURES}
    named = {"task": run.task, "length": run.length, "seed": run.seed, "estimator": run.estimator}
    return (
        named
        | {"state": run.state, "failed": run.failed, "warm_up": run.warm_up}
        | {key: None if number is None else float(f"{number:.5g}") for key, number in numbers.items()}
    )
