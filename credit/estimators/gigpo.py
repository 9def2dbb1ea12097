"""Responses that act in an environment, compared as a whole and in the states that they share."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from credit import groups
from credit.backends.arrays import namespace
from credit.estimators.steps import add_later_turns, mark_ends, number_pairs, sum_turns
from credit.estimators.token_rewards import TokenRewarded
from credit.loss import PolicyLoss
from credit.settings import refuse_without_effect
from credit.types import Array, Rollouts


class GiGPO(TokenRewarded):
    """Group-in-Group Policy Optimization: the episode's advantage, and that of its steps from shared states.

        A_{i,t} = A_i + step_weight A_{i,k},  k = step of token t,  R_{i,k} = sum_{j >= k} gamma^(j-k) r_{i,j}
        A_i = (r_i - mean_group(r)) / (std_group(r) + eps),  r_i = sum_k r_{i,k}
        A_{i,k} = (R_{i,k} - mean_s(R)) / (std_s(R) + eps), over the group's steps from the same state s

    A step is a turn of `Rollouts.turns`, and extra["states"] says by any integer in which state of the
    environment it starts; equal integers mean equal states within a group, and the last token of a turn is
    read. A state that is reached once gives A_{i,k} = 0, and a group with one valid response gets 0. The
    means of A_i count every response once, as in the paper; its code counts it once per step.
    Source: arXiv 2505.10978.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 2), bool),
        ...     turns=np.array([[0, 1], [0, 1]]),
        ...     extra={"states": np.array([[7, 8], [7, 9]])},
        ... )
        >>> credit.GiGPO(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[2.0, 1.0], [-2.0, -1.0]]
    """

    scale_invariant: ClassVar[bool] = True
    name: Literal["gigpo"] = "gigpo"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """That of the paper's code: mean over all tokens of the batch."""
    step_weight: float = 1.0
    """Factor on the advantage of the step; 1 in the paper's experiments."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Discount per step of the rewards of later steps."""
    divide_by_std: bool = True
    """False: the differences to the means are not divided by deviations, the paper's second form."""
    correction: Literal[0, 1] = 1
    """1 for the sample's standard deviation, as frameworks have it; 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviation, in the unit of the rewards."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        unscaled = None if self.divide_by_std else "with divide_by_std=False"
        weightless = None if self.step_weight else "with step_weight=0"
        refuse_without_effect(self, {"gamma": weightless, "correction": unscaled, "eps": unscaled})
        return self

    @property
    def ignores_group_constants(self) -> bool:
        return not self.divide_by_std

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.reward_fields, "turns", "extra.states")

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        rewards, valid = self.sum_rewards(rollouts), rollouts.valid
        episodes = self._compare(rewards, rollouts.groups, valid)[:, None]
        advantages = episodes + self.step_weight * self._of_steps(rollouts)
        size = groups.size(valid, rollouts.groups, rewards.dtype)
        return namespace(rewards).where(size[:, None] < 2.0, 0.0, advantages), rollouts.mask

    def _of_steps(self, rollouts: Rollouts) -> Array:
        """A_{i,k} [N, T], computed on the last token of each step, which stands for it."""
        mask, ends = rollouts.mask, mark_ends(rollouts)
        xp = namespace(rollouts.rewards)
        rewards = sum_turns(self.reward_tokens(rollouts), rollouts)
        returns = add_later_turns(rewards, ends, rollouts, self.gamma)
        ids = xp.broadcast_to(rollouts.groups[:, None], mask.shape)
        flat = [xp.reshape(each, (-1,)) for each in (returns, ids, rollouts.extra["states"], ends)]
        alone = self._compare(flat[0], number_pairs(flat[1], flat[2]), flat[3])
        return sum_turns(xp.reshape(alone, mask.shape), rollouts)

    def _compare(self, values: Array, ids: Array, valid: Array) -> Array:
        if not self.divide_by_std:
            return groups.center(values, ids, valid)
        return groups.standardize(values, ids, valid, correction=self.correction, eps=self.eps)
