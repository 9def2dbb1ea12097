"""Returns to go, whitened over the batch's tokens."""

from typing import Annotated, Literal

from pydantic import Field

from credit import tokens
from credit.estimators.execute import compute_tokens
from credit.estimators.token_rewards import KL_FIELDS, TokenRewarded, subtract_kl
from credit.estimators.whitening import Whitening
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class ReinforcePlusPlus(TokenRewarded, Whitening):
    """REINFORCE++: returns to go, with the KL penalty in the reward, whitened over the batch's tokens.

        r_{i,t} = 1[t last] r_i - kl_coefficient (log p - log q)
        A = whiten(G),  G_t = r_t + gamma G_{t+1},  whiten(x) = (x - mean) / sqrt(var + 1e-8)

    There is no group baseline, so one response per prompt suffices. With rewards_from="tokens" the rewards
    are those of tokens, r_{i,t} = token_rewards_{i,t} - kl_coefficient (log p - log q); with
    divide_by_std=False whiten(x) is x - mean.
    Source: arXiv 2501.03262.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(np.array([2.0, 0.0]), np.array([0, 1]), np.ones((2, 2), bool))
        >>> credit.ReinforcePlusPlus(whiten_correction=0)(rollouts).advantages.round(3).tolist()
        [[1.0, 1.0], [-1.0, -1.0]]
    """

    name: Literal["reinforce_plus_plus"] = "reinforce_plus_plus"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Discount per token."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the KL penalty in the reward; 0: no penalty, and no log-probs are needed."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.reward_fields, *(KL_FIELDS if self.kl_coefficient else ()))

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        mask = rollouts.mask
        return self.whiten(self._returns_to_go(rollouts), mask), mask

    def returns(self, rollouts: Rollouts) -> Array:
        """G [N, T], before whitening; 0 outside the mask."""
        return compute_tokens(self, rollouts, self._returns_to_go)

    def _returns_to_go(self, rollouts: Rollouts) -> Array:
        rewards = subtract_kl(self.reward_tokens(rollouts), rollouts, self.kl_coefficient)
        return tokens.returns_to_go(rewards, rollouts.mask, self.gamma)
