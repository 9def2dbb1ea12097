"""Estimators that whiten over the whole batch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups, tokens
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.estimators.group_relative import require_single_reward
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts

TOKEN_MEAN = PolicyLoss(aggregation="token_mean")


class ReinforcePlusPlus(Estimator):
    """REINFORCE++: returns to go, with the KL penalty in the reward, whitened over the batch's tokens.

        r_{i,t} = 1[t last] r_i - kl_coefficient (log p - log q)
        A = whiten(G),  G_t = r_t + gamma G_{t+1},  whiten(x) = (x - mean) / sqrt(var + 1e-8)

    No group baseline: prompts of one response will do. Loss: token mean. Source: arXiv 2501.03262.
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = False
    name: Literal["reinforce_plus_plus"] = "reinforce_plus_plus"
    loss: PolicyLoss = TOKEN_MEAN
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    whiten_correction: Literal[0, 1] = 1
    """1 for the sample variance, 0 for the population's (OpenRLHF)."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("log_probs", "reference_log_probs") if self.kl_coefficient else ()

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        rewards, mask = require_single_reward(self, rollouts), rollouts.mask
        xp = namespace(rewards)
        ones = xp.astype(mask, rewards.dtype)
        seen = xp.cumulative_sum(ones, axis=-1)
        last = mask & (seen == xp.sum(ones, axis=-1, keepdims=True))
        each = xp.where(last, rewards[:, None], 0.0)
        if self.kl_coefficient:
            each = each - self.kl_coefficient * (rollouts.log_probs - rollouts.reference_log_probs)
        returns = tokens.returns_to_go(each, mask, self.gamma)
        return tokens.whiten(returns, mask, self.whiten_correction), mask


class ReinforcePlusPlusBaseline(Estimator):
    """REINFORCE++ with a group baseline: the centred reward, whitened over the batch's tokens.

        A_{i,t} = whiten(r_i - mean_group(r)),  whiten(x) = (x - mean) / sqrt(var + 1e-8)

    Loss: token mean. Source: arXiv 2501.03262.
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    name: Literal["reinforce_plus_plus_baseline"] = "reinforce_plus_plus_baseline"
    loss: PolicyLoss = TOKEN_MEAN
    whiten_correction: Literal[0, 1] = 1
    """1 for the sample variance, 0 for the population's (OpenRLHF)."""

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        rewards, mask = require_single_reward(self, rollouts), rollouts.mask
        centred = groups.center(rewards, rollouts.groups, rollouts.valid)
        every = namespace(rewards).where(mask, centred[:, None], 0.0)
        return tokens.whiten(every, mask, self.whiten_correction), mask


class GDPO(Estimator):
    """Group reward-Decoupled normalisation: each of K rewards standardised by itself, then summed.

        A_i = whiten(sum_k c_k (r_{i,k} - mean_group(r_k)) / (std_group(r_k) + eps))

    so that no reward drowns the others. Rewards [N, K], or [N] for one. The sum is whitened over the
    valid responses, (x - mean) / (std + eps), or over all tokens with `over="tokens"` (verl).
    Loss: token mean. Source: arXiv 2601.05242.
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    name: Literal["gdpo"] = "gdpo"
    loss: PolicyLoss = TOKEN_MEAN
    reward_weights: tuple[float, ...] | None = None
    """c_k; None: 1 each."""
    over: Literal["responses", "tokens"] = "responses"
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Field(ge=0)] = 1e-6

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        combined, mask = self._combined(rollouts), rollouts.mask
        xp = namespace(combined)
        if self.over == "tokens":
            return tokens.whiten(xp.where(mask, combined[:, None], 0.0), mask), mask
        batch = xp.zeros_like(rollouts.groups)
        whitened = self._standardised(combined, batch, rollouts.valid)
        return xp.where(mask, whitened[:, None], 0.0), mask

    def _combined(self, rollouts: Rollouts) -> Array:
        rewards = rollouts.rewards if rollouts.rewards.ndim == 2 else rollouts.rewards[:, None]
        weights = self.reward_weights or (1.0,) * rewards.shape[1]
        if len(weights) != rewards.shape[1]:
            raise ValueError(f"gdpo has {len(weights)} reward_weights for {rewards.shape[1]} rewards")
        return sum(
            weight * self._standardised(rewards[:, k], rollouts.groups, rollouts.valid)
            for k, weight in enumerate(weights)
        )

    def _standardised(self, rewards: Array, ids: Array, valid: Array) -> Array:
        return groups.standardize(rewards, ids, valid, correction=self.correction, eps=self.eps)
