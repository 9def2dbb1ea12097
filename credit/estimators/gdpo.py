"""Several rewards per response, each standardized by itself."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups, tokens
from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.estimators.whitening import whiten_responses
from credit.loss import PolicyLoss
from credit.several_rewards import split_functions
from credit.types import Array, Rollouts


class GDPO(Estimator):
    """Group reward-Decoupled normalization: each of K rewards standardized by itself, then summed.

        A_i = whiten(sum_k c_k (r_{i,k} - mean_group(r_k)) / (std_group(r_k) + eps))

    Standardizing each reward keeps one of a large scale from drowning the others. Rewards are [N, K], or
    [N] for a single one. A reward that is NaN was not given: it counts neither in its group's mean and std
    nor in the sum of its response. The sum is whitened over the valid responses, as
    (x - mean) / (std + eps), or over all tokens with `over="tokens"`, as in verl. Source: arXiv 2601.05242.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rewards = np.array([[1.0, 100.0], [0.0, 0.0]])
        >>> rollouts = credit.Rollouts(rewards, np.array([0, 0]), np.ones((2, 1), bool))
        >>> credit.GDPO(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[1.0], [-1.0]]
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    blockwise: ClassVar[bool] = True  # as the base of another
    name: Literal["gdpo"] = "gdpo"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""
    reward_weights: tuple[float, ...] | None = None
    """Factors c_k, one per reward; None: 1 each."""
    over: Literal["responses", "tokens"] = "responses"
    """What the sum is whitened over."""
    correction: Literal[0, 1] = 1
    """1 for the sample's standard deviation, 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviations."""

    @property
    def is_uniform(self) -> bool:
        """All tokens of a response get one advantage."""
        return self._assigns_as(GDPO)

    def advantages(self, rollouts: Rollouts) -> Array:
        combined = self._combined(rollouts)
        if self.over == "tokens":
            return whiten_responses(combined, rollouts.mask)
        return self._standardize(combined, namespace(combined).zeros_like(rollouts.groups), rollouts.valid)

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        mask, xp = rollouts.mask, namespace(rollouts.rewards)
        if self.over == "tokens":
            return tokens.whiten(xp.where(mask, self._combined(rollouts)[:, None], 0.0), mask), mask
        return xp.where(mask, self.advantages(rollouts)[:, None], 0.0), mask

    def _combined(self, rollouts: Rollouts) -> Array:
        functions = split_functions(rollouts.rewards, rollouts.valid)
        weights = self.reward_weights or (1.0,) * len(functions)
        if len(weights) != len(functions):
            raise ValueError(f"gdpo has {len(weights)} reward_weights for {len(functions)} rewards")
        return sum(
            weight * self._standardize(rewards, rollouts.groups, given)
            for weight, (rewards, given) in zip(weights, functions, strict=True)
        )

    def _standardize(self, rewards: Array, ids: Array, valid: Array) -> Array:
        return groups.standardize(rewards, ids, valid, correction=self.correction, eps=self.eps)
