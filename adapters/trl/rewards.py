"""The rewards of TRL's reward functions as an estimator takes them: one per response, or one per function."""

from collections.abc import Sequence

import torch

import credit
from credit.adapters.traits import find_weigher, set_reward_weights, weighs_rewards

Tensor = torch.Tensor


def settle_weights(
    estimator: credit.Estimator, weights: Tensor, penalty: bool
) -> tuple[credit.Estimator, Tensor]:
    """The estimator and TRL with the same weights [K] of the rewards: the estimator's own if it has some.

    With `penalty` TRL's last function is the overlong penalty, for which the user gives no weight.
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


def combine_rewards(estimator: credit.Estimator, rewards: Tensor, weights: Tensor, size: int) -> Tensor:
    """The rewards [N, K] as the estimator takes them: [N, K] if it weighs them itself, else their sum [N].

    The sum is weighted by `weights` [K], and NaN where a row has no reward. A function that returns None
    for a whole group (`size` rows) does not apply to its prompt, and counts as 0.
    """
    unscored = rewards.isnan().all(dim=1)
    if weighs_rewards(estimator):
        absent = rewards.isnan().view(-1, size, rewards.shape[1]).all(dim=1).repeat_interleave(size, dim=0)
        return rewards.masked_fill(absent & ~unscored[:, None], 0.0)
    return (rewards * weights.to(rewards.device)).nansum(dim=1).masked_fill(unscored, float("nan"))
