"""The rewards of reward functions as an estimator takes them: one per response, or one per function."""

from collections.abc import Sequence

import torch

import credit
from credit.adapters.traits import find_filters, find_weigher, set_reward_weights, weighs_rewards
from credit.several_rewards import sum_given

Tensor = torch.Tensor


def settle_weights(
    estimator: credit.Estimator, weights: Tensor, penalty: bool = False
) -> tuple[credit.Estimator, Tensor]:
    """The estimator and the trainer with the same weights [K] of the rewards: the estimator's if it has some.

    With `penalty` the last function is an overlong penalty, for which the user gives no weight.
    """
    own: Sequence[float] | None = getattr(find_weigher(estimator), "reward_weights", None)
    if own is not None:
        functions = len(weights) - penalty
        if len(own) != functions:
            raise ValueError(
                f"{estimator.name} has {len(own)} reward_weights for {functions} reward functions; give one "
                "for each function"
            )
        weights = torch.tensor([*own, *([1.0] if penalty else [])])
    return set_reward_weights(estimator, weights.tolist()), weights


def refuse_missing_columns(filters: Sequence[int | str], names: Sequence[str], way_out: str = "") -> None:
    """A ValueError for a `filter_by` that counts beyond the reward functions."""
    for column in filters:
        if isinstance(column, int) and column >= len(names):
            raise ValueError(
                f"filter_by={column} counts the reward functions {', '.join(names)} from 0; expected "
                f"0..{len(names) - 1}{way_out}"
            )


def combine_rewards(estimator: credit.Estimator, rewards: Tensor, weights: Tensor) -> Tensor:
    """The rewards [N, K] as the estimator takes them: [N, K] if it weighs them itself, else their sum [N].

    The sum is weighted by `weights` [K], and NaN where a row has no reward.
    """
    return rewards if weighs_rewards(estimator) else sum_rewards(rewards, weights)


def select_deciding(estimator: credit.Estimator, rewards: Tensor, weights: Tensor) -> Tensor:
    """The rewards [N] or [N, K] by which the estimator keeps groups, of those of all functions [N, K]."""
    if any(column != "total" for column in find_filters(estimator)):
        return rewards
    return combine_rewards(estimator, flatten_weightless(rewards, weights), weights)


def sum_rewards(rewards: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum [N] of the rewards [N, K]; NaN where a row has none."""
    total: Tensor = sum_given(rewards * weights.to(rewards.device))
    return total


def flatten_weightless(rewards: Tensor, weights: Tensor) -> Tensor:
    """The rewards [N, K] with 0 for those of weight 0, in which no group then varies.

    Such a function is there to be logged; whether a row was given its reward, or an infinite one, stays.
    """
    weightless = (weights == 0).to(rewards.device) & rewards.isfinite()
    return rewards.masked_fill(weightless, 0.0)
