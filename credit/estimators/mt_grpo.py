"""Multi-turn responses whose turns are rewarded one by one."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups, tokens
from credit.backends.arrays import is_in_range, namespace
from credit.estimators.group_relative import GroupRelative
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class MTGRPO(GroupRelative):
    """Multi-Turn GRPO: the outcome's advantage, and on each turn that of the turn's own reward.

        A_{i,t} = A_i + turn_weight A_{i,k}    k = turn of token t,  r_{i,k} = sum_{t in k} token_rewards
        A_{i,k} = (r_{i,k} - mean_k(r)) / (std_k(r) + eps), over the group's responses with a k-th turn

    A_i is GRPO's, of `rewards`, which hold the outcome alone. A turn that nobody rewards, as the answer
    in the paper's two turns, keeps A_i. Loss: token mean. Source: arXiv 2505.11821 and its code, stated
    for two turns; more turns by the same rule.

    Extension: with gamma > 0 a turn's reward is its return r_{i,k} + gamma r_{i,k+1} + ..., so that turns
    earn from what they prepare.
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["mt_grpo"] = "mt_grpo"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    turn_weight: float = 1.0
    """Factor on the turn's advantage; the paper's experiments have 1."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Discount per turn of the rewards of later turns; 0, the paper's, leaves each turn its own."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("token_rewards", "turns")

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        outcome = self.advantages(rollouts)[:, None]
        return outcome + self.turn_weight * self._of_turns(rollouts), rollouts.mask

    def _of_turns(self, rollouts: Rollouts) -> Array:
        """A_{i,k} [N, T], computed on the last token of each turn, which stands for it."""
        mask, turns = rollouts.mask, rollouts.turns
        xp = namespace(rollouts.token_rewards)
        _, total, largest = tokens.make_reducers(mask, turns)
        place = xp.cumulative_sum(xp.ones_like(rollouts.token_rewards), axis=-1)
        last = mask & (place == largest(place))
        rewards = total(rollouts.token_rewards)
        if self.gamma:
            once = xp.where(last, rewards, 0.0)
            rewards = tokens.returns_to_go(once, mask, xp.where(last, self.gamma, xp.ones_like(once)))
        ids = xp.where(
            is_in_range(turns, mask.shape[1]), rollouts.groups[:, None] * mask.shape[1] + turns, -1
        )
        flat = (xp.reshape(each, (-1,)) for each in (rewards, ids, last))
        alone = groups.standardize(*flat, correction=self.correction, eps=self.eps)
        return total(xp.reshape(alone, mask.shape))
