"""Advantages in float64 from plain loops, response by response and token by token.

The formulas take the rewards of one group. Estimators without loops here have theirs among the tests only.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from credit.types import Rollouts

Formula = Callable[[Any, Sequence[float]], list[float]]


def mean(values: Sequence[float]) -> float:
    """0 for no values."""
    return math.fsum(values) / len(values) if values else 0.0


def standardized(estimator: Any, rewards: Sequence[float]) -> list[float]:
    """GRPO: (r - mean) / (std + eps), over the others with leave_one_out."""
    if len(rewards) < 2 or len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    if getattr(estimator, "leave_one_out", False):
        return [_against(estimator, r, [*rewards[:i], *rewards[i + 1 :]]) for i, r in enumerate(rewards)]
    center = mean(rewards)
    squares = math.fsum((r - center) ** 2 for r in rewards)
    std = math.sqrt(squares / (len(rewards) - estimator.correction))
    return [(r - center) / (std + estimator.eps) for r in rewards]


def _against(estimator: Any, reward: float, others: Sequence[float]) -> float:
    """(r - mean) / (std + eps) of the others, or r - mean where that is more than a thousand deviations."""
    apart, std = reward - mean(others), 0.0
    if len(set(others)) > 1:
        squares = math.fsum((r - mean(others)) ** 2 for r in others)
        std = math.sqrt(squares / (len(others) - estimator.correction))
    return apart if std <= abs(apart) / 1000 else apart / (std + estimator.eps)


def centered(estimator: Any, rewards: Sequence[float]) -> list[float]:
    """Dr. GRPO: r - mean."""
    return [r - mean(rewards) if len(set(rewards)) > 1 else 0.0 for r in rewards]


def less_the_others(estimator: Any, rewards: Sequence[float]) -> list[float]:
    """RLOO: r - mean of the other responses."""
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    return [r - mean([*rewards[:i], *rewards[i + 1 :]]) for i, r in enumerate(rewards)]


def spread_by_deviation(estimator: Any, deviation: Sequence[float], entropy: Sequence[float]) -> list[float]:
    """DGPO: the weights of one response's tokens, T softmax(d h^kappa / tau)."""
    scores = [d * h**estimator.kappa for d, h in zip(deviation, entropy, strict=True)]
    if any(math.isnan(score) for score in scores):
        return [math.nan] * len(scores)
    peak = max(scores, default=0.0)
    exponentials = [math.exp((score - peak) / estimator.tau) for score in scores]
    total = math.fsum(exponentials)
    return [len(scores) * e / total for e in exponentials]


def apply_to_groups(formula: Formula) -> Callable[[Any, Rollouts], Any]:
    """The advantages [N, T] of a formula, for rollouts whose rows are all valid."""

    def advantages(estimator: Any, rollouts: Rollouts) -> Any:
        result = np.zeros(rollouts.mask.shape)
        for group in set(rollouts.groups.tolist()):
            rows = np.flatnonzero(rollouts.groups == group).tolist()
            values = formula(estimator, [float(rollouts.rewards[row]) for row in rows])
            for row, value in zip(rows, values, strict=True):
                result[row, rollouts.mask[row]] = value
        return result

    return advantages


def _dgpo(estimator: Any, rollouts: Rollouts) -> Any:
    result = apply_to_groups(standardized)(estimator, rollouts)
    for row, mask in enumerate(rollouts.mask):
        fields = (rollouts.deviation[row, mask], rollouts.normalized_entropy[row, mask])
        result[row, mask] *= spread_by_deviation(estimator, *(field.tolist() for field in fields))
    return result


ORACLES: dict[str, Callable[[Any, Rollouts], Any]] = {
    "grpo": apply_to_groups(standardized),
    "dapo": apply_to_groups(standardized),
    "dr_grpo": apply_to_groups(centered),
    "rloo": apply_to_groups(less_the_others),
    "dgpo": _dgpo,
}
