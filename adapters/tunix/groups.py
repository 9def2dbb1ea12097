"""Whether an estimator compares the groups of a batch, found by trying it on one group and on two."""

from itertools import product
from typing import Any

import numpy as np

import credit
from credit.adapters.traits import OWN, weighs_rewards
from credit.fields import EXTRAS, replace_arrays
from credit.types import FIELDS

SIZE, WIDTH = 3, 4


def compares_groups(estimator: credit.Estimator) -> bool:
    """Whether a group's advantages change with the rewards of another group of its batch."""
    rewards = np.array([0.0, 1.0, 3.0])
    # Of the second, what counts the groups whose rewards differ sees that they do not.
    for others in ([2.0, 6.0, 5.0], [5.0, 5.0, 5.0]):
        alone = _try_advantages(estimator, rewards)
        beside = _try_advantages(estimator, np.append(rewards, others))
        if alone is not None and beside is not None and not np.allclose(beside[:SIZE], alone, rtol=1e-4):
            return True
    return False


def _try_advantages(estimator: credit.Estimator, rewards: np.ndarray) -> np.ndarray | None:
    """Advantages [N, T]; None if the estimator refuses arrays of the user's own in every shape."""
    known, groups = FIELDS | EXTRAS, np.arange(len(rewards)) // SIZE
    columns = np.stack([rewards, rewards[::-1]], axis=1) if weighs_rewards(estimator) else rewards
    given = credit.Rollouts(columns, groups, np.ones((len(rewards), WIDTH), bool))
    names = estimator.required_fields
    arrays = {name: _draw(len(rewards), known[name]) for name in names if name in known}
    own = [name for name in names if name not in known]
    for shapes in product(OWN, repeat=len(own)):
        drawn = {name: _draw_shape(len(rewards), shape) for name, shape in zip(own, shapes, strict=True)}
        try:
            return np.asarray(estimator(replace_arrays(given, arrays | drawn)).advantages)
        except Exception:  # what a user's estimator raises for another shape is its own affair
            continue
    return None


def _draw(rows: int, rule: Any) -> np.ndarray:
    drawn = _draw_shape(rows, rule.shape)
    if rule.kind == "integer":
        return np.broadcast_to(np.arange(WIDTH) // 2, drawn.shape).astype(np.int64)
    if rule.kind == "bool":
        return np.asarray(drawn > 0.5)
    return -drawn if rule.most == 0 else drawn


def _draw_shape(rows: int, shape: str) -> np.ndarray:
    """Numbers within 0 and 1, the same in the first rows however many there are."""
    if shape == "[]":
        return np.asarray(0.5)
    drawn = np.random.default_rng(0).uniform(0.05, 0.95, (rows, WIDTH))
    return {"[N]": drawn[:, 0], "[N, K]": drawn[:, :2]}.get(shape, drawn)
