"""Paired differences between estimators with bootstrap intervals over seeds."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from estimator_study.runs import Measure, Run, measured

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST = 5  # pairs in a task: a bootstrap interval never leaves the range of what it resamples


@dataclass(frozen=True)
class Interval:
    """A mean paired difference (of logarithms, for ratios), its interval, and the number of pairs."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self) -> str:
        """higher, lower, or nothing found: the interval crosses zero."""
        if self.low > 0.0:
            return "higher"
        return "lower" if self.high < 0.0 else "no difference found"

    def shown(self, by_ratio: bool) -> str:
        """`+0.031 [+0.010, +0.052]`, or in percent of the baseline for ratios."""
        ends = (self.mean, self.low, self.high)
        if by_ratio:
            mean, low, high = (f"{100 * math.expm1(end):+.0f} %" for end in ends)
        else:
            mean, low, high = (f"{end:+.3f}" for end in ends)
        return f"{mean} [{low}, {high}]"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def compare(runs: list[Run], estimator: str, baseline: str, measure: Measure) -> Interval | None:
    """The estimator against the baseline, paired by task and seed; None where a task has too few pairs.

    The mean over tasks of the mean over seeds; a task for which the measure has no value is left out.
    """
    values = {(run.cell, run.seed, run.estimator): measured(run, measure) for run in runs}
    differences: dict[tuple[str, int], list[float]] = {}
    for (cell, seed, name), value in values.items():
        other = values.get((cell, seed, baseline))
        if name == estimator and value is not None and other is not None:
            difference = math.log(value / other) if measure.by_ratio else value - other
            differences.setdefault(cell, []).append(difference)
    if not differences or min(map(len, differences.values())) < FEWEST:
        return None
    return bootstrap([np.array(found) for found in differences.values()])


def bootstrap(samples: list[np.ndarray]) -> Interval:
    """Percentile interval of the mean of the samples' means; each sample is resampled by itself.

    The percentiles are widened as a t interval is against a normal one ("expanded percentile", Hesterberg,
    arXiv 1411.5279): with few seeds plain ones are too narrow.
    """
    size = min(map(len, samples))
    freedom = sum(len(sample) - 1 for sample in samples)
    reach = stats.t.ppf(0.5 + LEVEL / 2, freedom) * math.sqrt(size / (size - 1))
    tail = 100 * stats.norm.sf(reach)
    rng = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for sample in samples:
        drawn = rng.integers(len(sample), size=(RESAMPLES, len(sample)))
        means += sample[drawn].mean(axis=1) / len(samples)
    low, high = np.percentile(means, [tail, 100 - tail])
    mean = np.mean([sample.mean() for sample in samples])
    return Interval(float(mean), float(low), float(high), sum(map(len, samples)))
