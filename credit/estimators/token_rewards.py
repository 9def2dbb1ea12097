"""Where the reward of a token comes from; part of the estimators that add up rewards to the end."""

from typing import ClassVar, Literal

from credit.backends.arrays import namespace
from credit.estimators.base import Estimator
from credit.log_ratios import bound_log_probs
from credit.types import Array, Rollouts
from credit.validation import require_single_reward

RewardSource = Literal["response", "tokens", "both"]
KL_FIELDS = ("log_probs", "reference_log_probs")
"""What `subtract_kl` reads."""


class TokenRewarded(Estimator):
    """Base class of the estimators that start from a reward for each token.

    r_{i,t} = 1[t last] r_i, token_rewards_{i,t}, or their sum
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = False

    rewards_from: RewardSource = "response"
    """"response": the reward of a response lies on its last token; "tokens": `Rollouts.token_rewards` hold
    all of it, and `rewards` only say which rows are valid; "both": the two are added."""

    @property
    def reward_fields(self) -> tuple[str, ...]:
        """What `reward_tokens` reads beside the rewards, to be named in `needs`."""
        return () if self.rewards_from == "response" else ("token_rewards",)

    def reward_tokens(self, rollouts: Rollouts) -> Array:
        """r [N, T], the reward of each token of prepared rollouts; 0 outside the mask."""
        rewards, mask = require_single_reward(self.name, rollouts), rollouts.mask
        if self.rewards_from == "tokens":
            return rollouts.token_rewards
        xp = namespace(rewards)
        ones = xp.astype(mask, rewards.dtype)
        seen = xp.cumulative_sum(ones, axis=-1)
        last = mask & (seen == xp.sum(ones, axis=-1, keepdims=True))
        each = xp.where(last, rewards[:, None], 0.0)
        return each if self.rewards_from == "response" else each + rollouts.token_rewards

    def sum_rewards(self, rollouts: Rollouts) -> Array:
        """The sum of the rewards of each response, [N], that of a response without tokens included."""
        rewards = require_single_reward(self.name, rollouts)
        if self.rewards_from == "response":
            return rewards
        total = namespace(rewards).sum(rollouts.token_rewards, axis=-1)
        return total if self.rewards_from == "tokens" else rewards + total


def subtract_kl(rewards: Array, rollouts: Rollouts, coefficient: float) -> Array:
    """The rewards r [N, T] minus coefficient (log p - log q), the penalty on the sampled tokens.

    A log-prob below -1e12 counts as -1e12, so that a token that a model excludes makes no other NaN.
    """
    if not coefficient:
        return rewards
    new, reference = (bound_log_probs(each) for each in (rollouts.log_probs, rollouts.reference_log_probs))
    return rewards - coefficient * (new - reference)
