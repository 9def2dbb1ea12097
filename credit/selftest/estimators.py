"""Every registered estimator on one library and device against the oracle."""

import time
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np

import credit
from credit.fields import EXTRAS, map_arrays, replace_arrays
from credit.selftest.advantages_oracle import ORACLES
from credit.selftest.places import Place
from credit.selftest.table import Row
from credit.types import FIELDS, FieldRule

Array = Any
GIVEN = ("rewards", "groups", "mask", "valid")
TOLERANCE = 2e-5  # of an advantage in float32

REQUIRED: dict[str, dict[str, Any]] = {"mix": {"parts": ((0.7, "grpo"), (0.3, {"name": "dgpo", "tau": 0.1}))}}
"""Values for settings without a default."""


def check_estimators(place: Place) -> Iterator[Row]:
    """The advantages [N, T] of every registered estimator with its default settings."""
    rollouts = make_rollouts()
    wide = map_arrays(lambda a: np.asarray(a, "f8") if a.dtype.kind == "f" else a, rollouts)
    for name in credit.names():
        loops, start = ORACLES.get(name), time.perf_counter()
        note = "" if loops else "against itself in float64 numpy"
        try:
            estimator = credit.get(name, **REQUIRED.get(name, {}))
            expected = loops(estimator, wide) if loops else estimator(wide).advantages
            start = time.perf_counter()
            actual = place.get(estimator(map_arrays(place.put, rollouts)).advantages)
            scale = np.maximum(1.0, np.abs(expected))
            error = float(np.max(np.abs(actual - expected) / scale)) / TOLERANCE
        except Exception:  # the table shows the error, and the exit status is 1
            error, note = float("inf"), traceback.format_exc().splitlines()[-1]
        yield Row(place, name, "array API", error, time.perf_counter() - start, note)


def make_rollouts() -> credit.Rollouts:
    """Ragged groups and responses with every field but `valid` set; one group has no signal."""
    rng = np.random.default_rng(1)
    rewards, groups = rng.normal(size=8).astype("f4"), np.asarray([0, 0, 1, 0, 1, 2, 3, 3], np.int32)
    rewards[6:] = 0.3
    mask = np.arange(10) < rng.integers(1, 11, size=(8, 1))
    optional = {name: rule for name, rule in (FIELDS | EXTRAS).items() if name not in GIVEN}
    arrays = {name: draw_field(rule, rng, 8, 10) for name, rule in optional.items()}
    return replace_arrays(credit.Rollouts(rewards, groups, mask), arrays)


def draw_field(rule: FieldRule, rng: np.random.Generator, rows: int, tokens: int) -> Array:
    """Values that the rule allows: numbers from -3 to 1 within its bounds, rising integers, or flags."""
    shape = {"[]": (), "[N]": (rows,), "[N, T]": (rows, tokens)}[rule.shape]
    if rule.kind == "bool":
        return rng.random(shape) < 0.5
    low, most = rule.least, rule.largest(shape)
    if rule.kind == "integer":
        return np.sort(rng.integers(0, int(most or 0) + 1, size=shape), axis=-1).astype(np.int32)
    low, high = -3.0 if low is None else low, 1.0 if most is None else most
    return np.asarray(rng.uniform(low, high, size=shape), "f4")
