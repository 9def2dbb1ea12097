"""Made-up completions for tests of the lens."""

from pathlib import Path
from typing import Any

import numpy as np

import credit
from credit import lens

N, T = 6, 40
FIELDS = ("log_probs", "reference_log_probs", "deviation", "normalized_entropy")


def rollouts(seed: int = 0, **more: Any) -> credit.Rollouts:
    """Rollouts in float64 of numbers that are float32, so that the page can hold them exactly."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(T) < rng.integers(1, T + 1, size=(N, 1))) & (rng.random((N, T)) < 0.9)
    mask[:, 0] = True
    fields = {
        "log_probs": -rng.exponential(size=(N, T)),
        "reference_log_probs": -rng.exponential(size=(N, T)),
        "deviation": rng.random((N, T)) ** 6,
        "normalized_entropy": rng.random((N, T)) ** 2,
    } | more
    exact = {name: np.float64(np.float32(values)) for name, values in fields.items() if name in FIELDS}
    given = credit.Rollouts(np.array([1.0, 0, 0, 1, 0.5, 0]), np.array([0, 0, 0, 3, 3, 3]), mask, **exact)
    return given._replace(**{name: value for name, value in more.items() if name not in FIELDS})


def write(
    path: Path, given: credit.Rollouts, estimator: credit.Estimator, tokens: Any = None, **more: Any
) -> Path:
    """Appends what the estimator makes of the rollouts to a file of records."""
    pieces = tokens or [[f" w{t}" for t in range(T)] for _ in range(N)]
    lens.record(path, tokens=pieces, rollouts=given, result=estimator(given), estimator=estimator, **more)
    return path
