"""--reward.clip_range, which acts where OpenRLHF's own estimator of that kind clips."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

import credit
from credit.adapters import traits
from credit.estimators.metrics import measure_advantages

Tensor = torch.Tensor
Place = Literal["advantage", "reward", "centered reward"]


class Assigned(NamedTuple):
    """What the experiences of a batch get."""

    result: credit.Credit
    returns: Tensor  # [N, T]


def find_place(estimator: credit.Estimator) -> Place | None:
    """What the range clips: OpenRLHF clips the value that it puts on a response's last token.

    For an advantage A_i per response, as in its group_norm, that is A_i. Its reinforce and gae put the
    reward there, and its reinforce_baseline the reward minus the mean of the group, before they are
    whitened. None: the advantages come from no such value.
    """
    if isinstance(estimator, credit.ReinforcePlusPlusBaseline) and estimator.is_uniform:
        return "centered reward"
    if isinstance(estimator, credit.ReinforcePlusPlus | credit.GAE):
        return None if estimator.rewards_from == "tokens" else "reward"
    return "advantage" if estimator.is_product else None


def assign_credit(
    estimator: credit.Estimator, rollouts: credit.Rollouts, clip_range: Sequence[float] | None
) -> Assigned:
    """The estimator's credit within the range; in a mix each part is clipped as it is where it stands alone.

    An estimator or part without a place to clip is not clipped; `options` refuses a range other than the
    default for it.
    """
    result, parts = estimator(rollouts), traits.list_parts(estimator)
    if clip_range is None or not any(_can_change(part.estimator, rollouts, clip_range) for part in parts):
        return _complete(estimator, rollouts, result)
    clipped = [part.factor * _clip(part.estimator, rollouts, clip_range) for part in parts]
    advantages = torch.stack(clipped).sum(dim=0)
    seen = rollouts.mask & rollouts.valid[:, None]
    metrics = result.metrics | measure_advantages(advantages, seen)
    rewarded = find_place(estimator) == "reward"
    given = _clip_rewards(rollouts, rollouts.rewards, clip_range) if rewarded else rollouts
    return _complete(estimator, given, credit.Credit(advantages, result.weights, metrics))


def _complete(estimator: credit.Estimator, rollouts: credit.Rollouts, result: credit.Credit) -> Assigned:
    """An estimator without returns of its own gives its advantages in their place."""
    returns = estimator.returns(rollouts)
    return Assigned(result, result.advantages if returns is None else returns)


def _can_change(estimator: credit.Estimator, rollouts: credit.Rollouts, clip_range: Sequence[float]) -> bool:
    """Whether a value to clip may lie outside the range, as far as looking at rewards tells."""
    place, rewards = find_place(estimator), rollouts.rewards
    if place == "centered reward":
        rewards = credit.groups.center(rewards, rollouts.groups, rollouts.valid)
    elif place != "reward":
        return place == "advantage"
    low, high = clip_range
    return bool((rollouts.valid & ((rewards < low) | (rewards > high))).any())


def _clip(estimator: credit.Estimator, rollouts: credit.Rollouts, clip_range: Sequence[float]) -> Tensor:
    """The advantages [N, T] of one part."""
    place = find_place(estimator)
    if place == "advantage":
        advantages, weights = estimator.factors(rollouts)
        clipped = advantages.clamp(*clip_range)[:, None] * weights
        return torch.where(rollouts.mask, clipped, 0.0)  # A_i may be NaN, and NaN times 0 is
    if place == "reward":
        rollouts = _clip_rewards(rollouts, rollouts.rewards, clip_range)
    elif place and isinstance(estimator, credit.ReinforcePlusPlusBaseline):
        centered = credit.groups.center(rollouts.rewards, rollouts.groups, rollouts.valid)
        rollouts = _clip_rewards(rollouts, centered, clip_range)
        # Clipped, they must not be centered again; what is left to do is to whiten them, as this one does.
        estimator = credit.ReinforcePlusPlus(
            divide_by_std=estimator.divide_by_std, whiten_correction=estimator.whiten_correction
        )
    return estimator(rollouts).advantages


def _clip_rewards(rollouts: credit.Rollouts, rewards: Tensor, clip_range: Sequence[float]) -> credit.Rollouts:
    return rollouts._replace(rewards=rewards.clamp(*clip_range))
