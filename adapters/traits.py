"""What an estimator does that no field of it says; where settings decide, it is tried on three responses."""

from typing import Any

import numpy as np

from credit.estimator import Estimator, all_needs
from credit.types import Rollouts


def is_product(estimator: Estimator) -> bool:
    """Whether the advantages are A_i w, so that A_i can be had by itself."""
    kind = type(estimator)
    return kind.assign is Estimator.assign and kind.__call__ is Estimator.__call__


def weighs_rewards(estimator: Estimator) -> bool:
    """Whether the estimator, or a part of it, is for the rewards of all functions, [N, K]."""
    parts = (part for _, part in getattr(estimator, "parts", ()))
    return "reward_weights" in type(estimator).model_fields or any(map(weighs_rewards, parts))


def learns_from_single_responses(estimator: Estimator) -> bool:
    """Whether groups of one get any advantage."""
    return bool(_tried(estimator, np.arange(3)).any())


def tells_tokens_apart(estimator: Estimator) -> bool:
    """Whether the tokens of a response get different advantages."""
    advantages = _tried(estimator, np.zeros(3, int))
    return not np.allclose(advantages, advantages[:, :1])


def _tried(estimator: Estimator, groups: Any) -> Any:
    """Advantages [3, 2]."""
    tokens = np.linspace(0.2, 0.8, 6, dtype=np.float32).reshape(3, 2)
    needed = dict.fromkeys(all_needs(estimator), tokens)
    special = {"turns": np.zeros((3, 2), int), "progress": np.array(0.5, np.float32)}
    needed |= {name: array for name, array in special.items() if name in needed}
    rewards, mask = np.array([0, 1, 3], np.float32), np.ones((3, 2), bool)
    return estimator(Rollouts(rewards, groups, mask, **needed)).advantages
