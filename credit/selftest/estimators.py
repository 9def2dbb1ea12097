"""Every registered estimator on one library and device against the oracle."""

import time
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np

import credit
from credit.selftest.advantages_oracle import ORACLES
from credit.selftest.places import Place
from credit.selftest.table import Row

Array = Any
TOLERANCE = 2e-5  # of an advantage in float32

REQUIRED: dict[str, dict[str, Any]] = {"mix": {"parts": ((0.7, "grpo"), (0.3, {"name": "dgpo", "tau": 0.1}))}}
"""Values for settings without a default."""


def check_estimators(place: Place) -> Iterator[Row]:
    """The advantages [N, T] of every registered estimator with its default settings."""
    rollouts = make_rollouts()
    wide = _map_arrays(rollouts, lambda a: np.asarray(a, "f8") if a.dtype.kind == "f" else a)
    for name in credit.names():
        estimator, loops = credit.get(name, **REQUIRED.get(name, {})), ORACLES.get(name)
        note = "" if loops else "against itself in float64 numpy"
        expected = loops(estimator, wide) if loops else estimator(wide).advantages
        start = time.perf_counter()
        try:
            actual = place.get(estimator(_map_arrays(rollouts, place.put)).advantages)
            scale = np.maximum(1.0, np.abs(expected))
            error = float(np.max(np.abs(actual - expected) / scale)) / TOLERANCE
        except Exception:  # the table shows the error, and the exit status is 1
            error, note = float("inf"), traceback.format_exc().splitlines()[-1]
        yield Row(place, name, "array API", error, time.perf_counter() - start, note)


def make_rollouts() -> credit.Rollouts:
    """Ragged groups and responses with every field set; one group has no signal."""
    rng = np.random.default_rng(1)
    groups = np.asarray([0, 0, 1, 0, 1, 2, 3, 3], np.int32)
    mask = np.arange(10) < rng.integers(1, 11, size=(8, 1))
    fractions = ("normalized_entropy", "deviation", "token_rewards")
    logs = ("log_probs", "reference_log_probs", "rollout_log_probs")
    floats = {name: rng.random((8, 10)).astype("f4") for name in fractions}
    floats |= {name: -3 * rng.random((8, 10)).astype("f4") for name in logs}
    rewards, baseline = (rng.normal(size=8).astype("f4") for _ in range(2))
    turns = np.cumsum(rng.random((8, 10)) < 0.3, axis=1).astype(np.int32)
    rewards[6:] = 0.3
    progress = np.asarray(0.5, "f4")
    return credit.Rollouts(
        rewards, groups, mask, **floats, turns=turns, baseline_rewards=baseline, progress=progress
    )


def _map_arrays(rollouts: credit.Rollouts, function: Any) -> credit.Rollouts:
    return credit.Rollouts(*(None if field is None else function(field) for field in rollouts))
