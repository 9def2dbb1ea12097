"""Which prompts' samples are worth training on, for slime's dynamic sampling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import credit
from credit.adapters.hooks import check_functions, check_version
from credit.adapters.slime.groups import read_reward
from credit.adapters.slime.hooks import FRAMEWORK, OF_ROLLOUTS

check_version(FRAMEWORK)
check_functions(FRAMEWORK, OF_ROLLOUTS)

from slime.rollout.filter_hub.base_types import DynamicFilterOutput  # noqa: E402


def keep_group(args: Any, estimator: credit.Estimator, samples: Sequence[Any]) -> Any:
    """Whether the estimator keeps this group of samples; of a rollout with several the last one counts."""
    rewards = [_find_last(sample).get_reward_value(args) for sample in samples]
    given = np.array([read_reward(reward) for reward in rewards], np.float64)
    rollouts = credit.Rollouts(given, np.zeros(len(given), np.int64), np.ones((len(given), 1), bool))
    kept = bool(estimator.keep(rollouts).any())
    return DynamicFilterOutput(keep=kept, reason=None if kept else f"credit_{estimator.name}")


def _find_last(sample: Any) -> Any:
    """A sample, or the last of those that one rollout gave."""
    while isinstance(sample, list):
        sample = sample[-1]
    return sample
