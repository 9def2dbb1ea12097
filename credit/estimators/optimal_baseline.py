"""The baseline that otb and tir_otb subtract; they differ in which tokens they compare."""

from credit import groups, tokens
from credit.backends.arrays import group_sum, namespace
from credit.estimators.execute import compute_tokens
from credit.estimators.token_rewards import TokenRewarded
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class OptimalBaseline(TokenRewarded):
    """Base class of the optimal token baselines.

    A_{i,t} = G_{i,t} - sum_i W_{i,t} G_{i,t} / sum_i W_{i,t}
    """

    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """verl's default, with which the method is published: mean over all tokens of the batch."""
    zero_tail: bool = True
    """What a token gets that no other response of its group reaches: with True its whole return, as in verl,
    with False 0, its return less itself."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.reward_fields, "log_probs", "extra.sum_squares")

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        mask, returns, energy = rollouts.mask, self._returns_to_go(rollouts), _gather_energy(rollouts)
        xp = namespace(returns)
        ids = rollouts.groups[:, None] * mask.shape[1] + xp.where(mask, self.number_places(mask), 0)
        flat, ids, inside, energy = (xp.reshape(each, (-1,)) for each in (returns, ids, mask, energy))
        plain = groups.center(flat, ids, inside)  # exactly 0 where all are equal, which weights do not give
        advantages = xp.reshape(groups.center(plain, ids, inside, energy), mask.shape)
        if self.zero_tail:
            there = xp.reshape(group_sum(xp.astype(inside, returns.dtype), ids), mask.shape)
            advantages = xp.where(there < 2.0, returns, advantages)
        size = groups.size(rollouts.valid, rollouts.groups, returns.dtype)
        return xp.where(size[:, None] < 2.0, 0.0, advantages), mask

    def returns(self, rollouts: Rollouts) -> Array:
        """G [N, T]; 0 outside the mask."""
        return compute_tokens(self, rollouts, self._returns_to_go)

    def _returns_to_go(self, rollouts: Rollouts) -> Array:
        return tokens.returns_to_go(self.reward_tokens(rollouts), rollouts.mask, 1.0)

    def number_places(self, mask: Array) -> Array:
        """Integers [N, T]; tokens of a group that have the same number are compared."""
        raise NotImplementedError


def _gather_energy(rollouts: Rollouts) -> Array:
    """W [N, T]. In this form no rounding makes a term negative where p is near 1."""
    mask, log_probs = rollouts.mask, rollouts.log_probs
    xp = namespace(log_probs)
    others = xp.clip(rollouts.extra["sum_squares"] - xp.exp(2.0 * log_probs), min=0.0)
    return xp.cumulative_sum(xp.where(mask, xp.expm1(log_probs) ** 2 + others, 0.0), axis=-1)
