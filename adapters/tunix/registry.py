"""credit's estimators in Tunix's registry: credit/grpo, credit/dapo, ..."""

from functools import cache, partial
from typing import Any

import jax
import numpy as np
from tunix.rl import function_registry

import credit
from credit.adapters.estimator_report import report_estimator
from credit.adapters.traits import weighs_rewards
from credit.adapters.tunix.hooks import FRAMEWORK
from credit.adapters.tunix.rewards import current_receiver

PREFIX = "credit/"
LEARNER = "credit"  # the estimator by which CreditGRPOLearner receives the rewards from Tunix


def register_estimators() -> None:
    """Registers every estimator of credit that Tunix does not know yet, as credit/<name>."""
    known = function_registry.default_registry.list_functions("advantage_estimator")
    functions = {PREFIX + name: partial(compute_advantages, name) for name in credit.names()}
    for name, function in ({LEARNER: _receive_rewards} | functions).items():
        if name not in known:
            function_registry.register_advantage_estimator(name)(function)


def compute_advantages(name: str, rewards: Any, num_generations: int, **_: Any) -> np.ndarray:
    """A_i [B] of the estimator with its default settings, from what every learner of Tunix passes on.

    Raises:
        ValueError: the estimator needs more than the rewards [B] of whole groups.
    """
    estimator = credit.get(name)
    needs = [*estimator.required_fields, *_find_hidden_needs(estimator, len(rewards) == num_generations)]
    way_out = f"use CreditGRPOLearner with CreditGRPOConfig(estimator={name!r})"
    if weighs_rewards(estimator):
        raise ValueError(
            f"{PREFIX}{name} weighs the rewards of several functions, but this learner passes on their sum "
            f"only; {way_out}, which gives it each"
        )
    if needs:
        raise ValueError(
            f"{PREFIX}{name} needs {' and '.join(needs)}, but this learner passes on the rewards of its "
            f"groups only (the agentic learner, those of one group); {way_out}"
        )
    _report_once(estimator)
    return _response_advantages(estimator, np.asarray(rewards), num_generations)


@cache
def _report_once(estimator: credit.Estimator) -> None:
    """Says what trains at the first batch, since a registered function does not see its learner's start."""
    if jax.process_index() == 0:
        report_estimator(FRAMEWORK, estimator)


def _receive_rewards(rewards: Any, num_generations: int, **_: Any) -> np.ndarray:
    received = current_receiver()
    if received is None:
        raise ValueError(
            "CreditGRPOConfig works with CreditGRPOLearner only, and CreditAgenticGRPOConfig with "
            "CreditAgenticGRPOLearner; give other learners their own config with "
            f"advantage_estimator={PREFIX + 'grpo'!r} or another"
        )
    received.totals = np.asarray(rewards, np.float64)
    # The advantages of the tokens follow later; NaN keeps metric_fns from taking these for them.
    return np.full(len(rewards), np.nan)


def _response_advantages(estimator: credit.Estimator, rewards: np.ndarray, size: int) -> np.ndarray:
    mask = np.ones((len(rewards), 1), bool)
    return estimator(credit.Rollouts(rewards, np.arange(len(rewards)) // size, mask)).advantages[:, 0]


def _find_hidden_needs(estimator: credit.Estimator, one_group: bool) -> list[str]:
    """Needs that are not fields: the responses' lengths, or other groups than the one that is given."""
    if estimator.required_fields:
        return []
    # The last two are equal: what counts the groups whose rewards differ needs the others too.
    rewards, needs = np.array([0.0, 1.0, 3.0, 4.0, 5.0, 5.0]), []
    lengths = credit.Rollouts(rewards, np.zeros(6, int), np.tri(6, dtype=bool))
    if not np.allclose(estimator(lengths).advantages[:, 0], _response_advantages(estimator, rewards, 6)):
        needs.append("the responses' lengths")
    alone = _response_advantages(estimator, rewards[:2], 2)
    if one_group and not np.allclose(_response_advantages(estimator, rewards, 2)[:2], alone):
        needs.append("the whole batch")
    return needs
