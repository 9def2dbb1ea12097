"""Paired differences between estimators: bootstrap intervals over seeds, p values and their correction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from estimator_study.runs import ALL_MEASURES, Run, measured

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST = 5  # pairs in a task: a bootstrap interval never leaves the range of what it resamples


@dataclass(frozen=True)
class Difference:
    """A mean paired difference (of logarithms, for ratios) with its own interval and its p value.

    `holm_p` is the p value corrected for all differences of its table; None for one that is not tested.
    """

    mean: float
    low: float
    high: float
    pairs: int
    p: float
    holm_p: float | None = None

    @property
    def verdict(self) -> str:
        """higher or lower where the corrected p value allows it; the interval alone does not."""
        if self.holm_p is None:
            return "not tested"
        if self.holm_p > 1.0 - LEVEL:
            return "no difference found"
        return "higher" if self.mean > 0.0 else "lower"

    def show(self, by_ratio: bool) -> str:
        """`+0.031 [+0.010, +0.052]`, or in percent of the baseline for ratios."""
        low, high = (show_size(end, by_ratio) for end in (self.low, self.high))
        return f"{show_size(self.mean, by_ratio)} [{low}, {high}]"

    def show_p(self) -> str:
        """`p = 0.02`, after the correction; nothing where it is not tested."""
        if self.holm_p is None:
            return ""
        return "p < 0.001" if self.holm_p < 0.001 else f"p = {self.holm_p:.2g}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def show_size(size: float, by_ratio: bool) -> str:
    return f"{100 * math.expm1(size):+.0f} %" if by_ratio else f"{size:+.3f}"


def compare(runs: list[Run], estimator: str, baseline: str, key: str) -> Difference | None:
    """The estimator against the baseline, paired by task and seed; None where a task has too few pairs.

    The mean over tasks of the mean over seeds; a task for which the measure has no value is left out.
    """
    by_ratio = ALL_MEASURES[key].by_ratio
    values = {(run.cell, run.seed, run.estimator): measured(run, key) for run in runs}
    differences: dict[tuple[str, int], list[float]] = {}
    for (cell, seed, name), value in values.items():
        other = values.get((cell, seed, baseline))
        if name == estimator and value is not None and other is not None:
            difference = math.log(value / other) if by_ratio else value - other
            differences.setdefault(cell, []).append(difference)
    return compare_pairs(differences, FEWEST)


def compare_pairs(differences: Mapping[Any, Sequence[float]], fewest: int) -> Difference | None:
    """The mean over tasks of the mean of each task's paired differences; None where a task has too few."""
    if not differences or min(map(len, differences.values())) < fewest:
        return None
    samples = [np.array(found) for found in differences.values()]
    mean = float(np.mean([sample.mean() for sample in samples]))
    return Difference(mean, *bootstrap(samples), sum(map(len, samples)), find_p(samples))


def bootstrap(samples: list[np.ndarray]) -> tuple[float, float]:
    """Percentile interval of the mean of the samples' means; each sample is resampled by itself.

    The percentiles are widened as a t interval is against a normal one ("expanded percentile", Hesterberg,
    arXiv 1411.5279): with few seeds plain ones are too narrow.
    """
    size = min(map(len, samples))
    reach = stats.t.ppf(0.5 + LEVEL / 2, _freedom(samples)) * math.sqrt(size / (size - 1))
    tail = 100 * stats.norm.sf(reach)
    rng = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for sample in samples:
        drawn = rng.integers(len(sample), size=(RESAMPLES, len(sample)))
        means += sample[drawn].mean(axis=1) / len(samples)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def find_p(samples: list[np.ndarray]) -> float:
    """Two-sided p value of a t test of the mean of the samples' means; variances are pooled over samples."""
    mean = np.mean([sample.mean() for sample in samples])
    error = math.sqrt(sum(sample.var(ddof=1) / len(sample) for sample in samples)) / len(samples)
    if error == 0.0:
        return 0.0 if mean else 1.0  # the limits of the t test, which divides by the error
    return float(2 * stats.t.sf(abs(mean) / error, _freedom(samples)))


def _freedom(samples: list[np.ndarray]) -> int:
    return sum(len(sample) - 1 for sample in samples)


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """P values by which the chance of any wrong finding among all is at most the level (Holm, 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def correct(differences: list[Difference]) -> list[Difference]:
    """The same differences with p values that are corrected for their number."""
    adjusted = adjust_by_holm([difference.p for difference in differences])
    return [replace(one, holm_p=p) for one, p in zip(differences, adjusted, strict=True)]
