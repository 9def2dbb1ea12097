"""Several rewards per response, each standardized by itself."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups, tokens
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


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
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
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
        whitened = self._standardize(combined, batch, rollouts.valid)
        return xp.where(mask, whitened[:, None], 0.0), mask

    def _combined(self, rollouts: Rollouts) -> Array:
        rewards = rollouts.rewards if rollouts.rewards.ndim == 2 else rollouts.rewards[:, None]
        weights = self.reward_weights or (1.0,) * rewards.shape[1]
        if len(weights) != rewards.shape[1]:
            raise ValueError(f"gdpo has {len(weights)} reward_weights for {rewards.shape[1]} rewards")
        return sum(
            weight * self._standardize(rewards[:, k], rollouts.groups, rollouts.valid)
            for k, weight in enumerate(weights)
        )

    def _standardize(self, rewards: Array, ids: Array, valid: Array) -> Array:
        return groups.standardize(rewards, ids, valid, correction=self.correction, eps=self.eps)
