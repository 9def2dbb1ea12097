"""Multi-turn responses whose turns are rewarded one by one."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from credit.backends.arrays import group_sum, is_in_range, namespace
from credit.estimators.group_relative import GroupRelative
from credit.estimators.steps import add_later_turns, mark_ends, sum_turns
from credit.loss import PolicyLoss
from credit.settings import refuse_without_effect
from credit.types import Array, Rollouts


class MTGRPO(GroupRelative):
    """Multi-Turn GRPO: the outcome's advantage, and on each turn that of the turn's own reward.

        A_{i,t} = A_i + turn_weight A_{i,k}    k = turn of token t,  r_{i,k} = sum_{t in k} token_rewards
        A_{i,k} = (r_{i,k} - mean_k(r)) / (std_k(r) + eps), over the group's responses with a k-th turn

    A_i is GRPO's advantage of `rewards`, which hold the outcome alone. On a turn that has no rewards, as
    the answer in the paper's two turns, tokens keep A_i. Source: arXiv 2505.11821 and its code, which state
    it for two turns; here the same rule holds for more.

    The k-th turns of a group are compared as if they were alike. Where the policy chooses the number of
    turns they are not: a response may be at its answer while another still asks a tool, and a turn that one
    response alone reaches has no peer, so that its tokens keep A_i. The metric `unshared_turn_mean` is the
    share of tokens in turns that some response of the group lacks; the higher it is, the less the baseline
    of a turn says.

    Extension: with gamma > 0 the reward of a turn is its return r_{i,k} + gamma r_{i,k+1} + ..., so that a
    turn is also credited for the later turns that it prepares.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 2), bool),
        ...     token_rewards=np.array([[0.0, 0.0], [0.5, 0.0]]),
        ...     turns=np.array([[0, 1], [0, 1]]),
        ... )
        >>> credit.MTGRPO(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[0.0, 1.0], [0.0, -1.0]]
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["mt_grpo"] = "mt_grpo"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The policy loss of the paper: mean over all tokens of the batch."""
    turn_weight: float = 1.0
    """Factor on the advantage of the turn; 1 in the paper's experiments."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Discount per turn of the rewards of later turns; with 0, as in the paper, a turn has its own reward."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        refuse_without_effect(self, {"gamma": None if self.turn_weight else "with turn_weight=0"})
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("token_rewards", "turns")

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        outcome = self.advantages(rollouts)[:, None]
        return outcome + self.turn_weight * self._of_turns(rollouts), rollouts.mask

    def observed(self, rollouts: Rollouts) -> dict[str, Array]:
        """1 on the tokens of turns that some response of the group lacks."""
        mask, ends, ids = rollouts.mask, mark_ends(rollouts), _number_turns(rollouts)
        xp = namespace(rollouts.token_rewards)
        once = xp.astype(ends, rollouts.token_rewards.dtype)
        flat = group_sum(xp.reshape(once, (-1,)), xp.reshape(ids, (-1,)))
        having, some = xp.reshape(flat, mask.shape), xp.astype(xp.any(mask, axis=-1), once.dtype)
        lacking = having < group_sum(some, rollouts.groups)[:, None]
        return {"unshared_turn": sum_turns(once * xp.astype(lacking, once.dtype), rollouts)}

    def _of_turns(self, rollouts: Rollouts) -> Array:
        """A_{i,k} [N, T], computed on the last token of each turn, which stands for it."""
        ends, ids = mark_ends(rollouts), _number_turns(rollouts)
        xp = namespace(rollouts.token_rewards)
        rewards = sum_turns(rollouts.token_rewards, rollouts)
        if self.gamma:
            rewards = add_later_turns(rewards, ends, rollouts, self.gamma)
        alone = self._standardize(*(xp.reshape(each, (-1,)) for each in (rewards, ids, ends)))
        return sum_turns(xp.reshape(alone, rollouts.mask.shape), rollouts)


def _number_turns(rollouts: Rollouts) -> Array:
    """A number [N, T] per group and turn; -1 in a turn outside 0..T-1."""
    turns, width = rollouts.turns, rollouts.mask.shape[1]
    xp = namespace(turns)
    return xp.where(is_in_range(turns, width), rollouts.groups[:, None] * width + turns, -1)
