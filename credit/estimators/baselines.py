"""Baselines other than the group's mean and deviation; each gives one advantage per response."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.backends.arrays import group_max, group_sum, namespace
from credit.estimators.base import Estimator
from credit.estimators.group_relative import require_single_reward
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts

TOKEN_MEAN = PolicyLoss(aggregation="token_mean")


class OPO(Estimator):
    """On-Policy RL with Optimal reward baseline: the group's mean weighted by response length.

        A_i = r_i - sum_j l_j r_j / sum_j l_j        l_j = number of tokens of response j

    A response without tokens has no weight; a group of one gives 0. Loss: token mean, as the baseline
    is the optimal one for a sum over tokens. Source: arXiv 2505.23585.
    """

    blockwise: ClassVar[bool] = True
    name: Literal["opo"] = "opo"
    loss: PolicyLoss = TOKEN_MEAN

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        lengths = xp.sum(xp.astype(rollouts.mask, rewards.dtype), axis=-1)
        centred = groups.center(rewards, ids, valid, lengths)
        return xp.where(groups.size(valid, ids, rewards.dtype) < 2.0, 0.0, centred)


class MaxRL(Estimator):
    """Maximum-likelihood RL: the centred reward over the group's mean.

        A_i = (r_i - mean_group(r)) / mean_group(r)        0 where the mean is not positive

    For rewards of 0 and 1, rare successes weigh more than in GRPO. Loss: token mean.
    Source: arXiv 2602.02710.
    """

    shift_invariant: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = True
    blockwise: ClassVar[bool] = True
    name: Literal["max_rl"] = "max_rl"
    loss: PolicyLoss = TOKEN_MEAN

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        count = xp.clip(groups.size(valid, ids, rewards.dtype), min=1.0)
        mean = group_sum(xp.where(valid, rewards, 0.0), ids) / count
        centred = groups.center(rewards, ids, valid)
        return xp.where(mean > 0.0, centred / xp.where(mean > 0.0, mean, 1.0), 0.0)


class LitePPO(Estimator):
    """Lite PPO: the group's mean as baseline, the whole batch's deviation as scale.

        A_i = (r_i - mean_group(r)) / (std_batch(r) + eps)

    Loss: token mean. Source: arXiv 2508.08221.
    """

    shift_invariant: ClassVar[bool] = False  # a shift of one group changes the batch's deviation
    scale_invariant: ClassVar[bool] = True
    blockwise: ClassVar[bool] = True
    name: Literal["lite_ppo"] = "lite_ppo"
    loss: PolicyLoss = TOKEN_MEAN
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Field(ge=0)] = 1e-6

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, valid = require_single_reward(self, rollouts), rollouts.valid
        xp = namespace(rewards)
        batch = xp.zeros_like(rollouts.groups)
        deviation = groups.std(rewards, batch, valid, correction=self.correction)
        return groups.divide_or_keep(groups.center(rewards, rollouts.groups, valid), deviation + self.eps)


class ReMax(Estimator):
    """ReMax: the reward less that of a greedy response to the same prompt.

        A_i = r_i - r_i^greedy        (Rollouts.baseline_rewards)

    Loss: sum over a response's tokens. Source: arXiv 2310.10505.
    """

    shift_invariant: ClassVar[bool] = False
    blockwise: ClassVar[bool] = True
    name: Literal["remax"] = "remax"
    loss: PolicyLoss = PolicyLoss(aggregation="sequence_sum")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("baseline_rewards",)

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards = require_single_reward(self, rollouts)
        xp = namespace(rewards)
        return xp.where(rollouts.valid, rewards - rollouts.baseline_rewards, 0.0)


class GPG(Estimator):
    """Group Policy Gradient: the centred reward, scaled up by the share of rows that earned nothing.

        A_i = alpha (r_i - mean_group(r)) / f        alpha = N / number of non-zero rewards

    over the valid rows, as verl has it. Loss: token mean. Source: arXiv 2504.02546.
    """

    shift_invariant: ClassVar[bool] = False
    blockwise: ClassVar[bool] = True
    name: Literal["gpg"] = "gpg"
    loss: PolicyLoss = TOKEN_MEAN
    f: Annotated[float, Field(gt=0)] = 1.0

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, valid = require_single_reward(self, rollouts), rollouts.valid
        xp = namespace(rewards)
        earned = xp.sum(xp.astype(valid & (rewards != 0.0), rewards.dtype))
        alpha = xp.sum(xp.astype(valid, rewards.dtype)) / xp.clip(earned, min=1.0)
        return alpha * groups.center(rewards, rollouts.groups, valid) / self.f


class PassAtK(Estimator):
    """Pass@k: only the group's best response is reinforced, by its lead over the second.

        A_i = (r_max - r_second) / (std_group(r) + eps)  for the best,  0 for the others

    A tie at the top gives 0, and so does a group of one. Loss: token mean. Source: arXiv 2503.19595.
    """

    scale_invariant: ClassVar[bool] = True
    blockwise: ClassVar[bool] = True
    name: Literal["pass_at_k"] = "pass_at_k"
    loss: PolicyLoss = TOKEN_MEAN
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Field(ge=0)] = 1e-6

    def advantages(self, rollouts: Rollouts) -> Array:
        rewards, ids, valid = require_single_reward(self, rollouts), rollouts.groups, rollouts.valid
        xp = namespace(rewards)
        lowest = -float("inf")
        known = xp.where(valid, rewards, lowest)
        best = valid & (known == group_max(known, ids))
        second = group_max(xp.where(best, lowest, known), ids)
        alone = group_sum(xp.astype(best, rewards.dtype), ids) == 1.0
        leads = best & alone & (second > lowest)
        lead = xp.where(leads, rewards, 0.0) - xp.where(leads, second, 0.0)
        deviation = groups.std(rewards, ids, valid, correction=self.correction)
        return groups.divide_or_keep(lead, deviation + self.eps)
