"""Generalized advantage estimation, from the values of a critic."""

from typing import Annotated, Literal

from pydantic import Field

from credit import tokens
from credit.estimators.execute import compute_tokens
from credit.estimators.token_rewards import KL_FIELDS, TokenRewarded, subtract_kl
from credit.estimators.whitening import Whitening
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class GAE(TokenRewarded, Whitening):
    """Generalized advantage estimation from a critic's values: PPO's advantage, whitened over the batch.

        A = whiten(a),  a_t = delta_t + gamma lam a_{t+1},  delta_t = r_t + gamma V_{t+1} - V_t
        r_{i,t} = 1[t last] r_i - kl_coefficient (log p - log q),  V = extra["values"]

    t + 1 is the next token of the mask, so that outputs of tools take no part, and V and a are 0 after the
    last one. `returns` are a + V, the critic's targets. whiten(x) = (x - mean) / sqrt(var + 1e-8), as verl
    and OpenRLHF do it, over the tokens of the batch; with divide_by_std=False it is x - mean. There is no
    group baseline, so one response per prompt suffices. Source: arXiv 1506.02438.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([3.0, 0.0]),
        ...     groups=np.array([0, 1]),
        ...     mask=np.ones((2, 2), bool),
        ...     extra={"values": np.array([[2.0, 1.0], [2.0, 1.0]])},
        ... )
        >>> credit.GAE(lam=0.0).returns(rollouts).tolist()
        [[1.0, 3.0], [1.0, 0.0]]
        >>> credit.GAE(lam=0.0, whiten_correction=0)(rollouts).advantages.round(3).tolist()
        [[-0.577, 1.732], [-0.577, -0.577]]
    """

    name: Literal["gae"] = "gae"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """PPO's policy loss: mean over all tokens of the batch."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Discount per token."""
    lam: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Lambda: 1 sums the rewards to the end, less the value; 0 trusts the next token's value."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the KL penalty in the reward; 0: no penalty, and no log-probs are needed."""

    @property
    def needs(self) -> tuple[str, ...]:
        penalty = KL_FIELDS if self.kl_coefficient else ()
        return (*self.reward_fields, *penalty, "extra.values")

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        mask = rollouts.mask
        return self.whiten(self._accumulate(rollouts), mask), mask

    def returns(self, rollouts: Rollouts) -> Array:
        """a + V [N, T], the critic's targets; 0 outside the mask."""
        return compute_tokens(self, rollouts, lambda given: self._accumulate(given) + given.extra["values"])

    def _accumulate(self, rollouts: Rollouts) -> Array:
        """a [N, T], before whitening."""
        values, mask = rollouts.extra["values"], rollouts.mask
        rewards = subtract_kl(self.reward_tokens(rollouts), rollouts, self.kl_coefficient)
        errors = rewards + self.gamma * tokens.following(values, mask) - values
        return tokens.returns_to_go(errors, mask, self.gamma * self.lam)
