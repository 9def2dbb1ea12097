"""GRPO with a reward for each step of a response."""

from typing import Annotated, Literal

from pydantic import Field

from credit import groups
from credit.backends.arrays import namespace
from credit.estimators.steps import add_later_turns, mark_ends, sum_turns
from credit.estimators.token_rewards import TokenRewarded
from credit.types import Array, Rollouts


class ProcessGRPO(TokenRewarded):
    """GRPO with process supervision: rewards of steps, standardized within the group and summed to the end.

        A_{i,t} = sum_{k >= step of token t} (r_{i,k} - mean(R)) / (std(R) + eps)
        R = all r_{j,k} of the group,    r_{i,k} = sum_{t in step k} token_rewards

    A step is a turn of `Rollouts.turns`, whose number need not be a turn's of a dialog: number the steps of
    a response 0, 1, ... and put each reward on any token of its step. Every step counts once in the mean,
    so that a response of many steps counts more. A response that alone has steps in its group gets 0, where
    the formula would compare its steps with each other.
    Source: arXiv 2402.03300, section 4.1.3.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([0.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 3), bool),
        ...     token_rewards=np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
        ...     turns=np.array([[0, 0, 1], [0, 0, 1]]),
        ... )
        >>> credit.ProcessGRPO(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[2.0, 2.0, 1.0], [-2.0, -2.0, -1.0]]
    """

    name: Literal["process_grpo"] = "process_grpo"
    rewards_from: Literal["tokens", "both"] = "tokens"
    """"tokens": the rewards of steps are those in `Rollouts.token_rewards`; "both": the reward of the
    response is added to that of its last step."""
    correction: Literal[0, 1] = 1
    """1 for the sample's standard deviation, as frameworks have it; 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviation, in the unit of the rewards."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (*self.reward_fields, "turns")

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        mask, ends = rollouts.mask, mark_ends(rollouts)
        rewards = sum_turns(self.reward_tokens(rollouts), rollouts)
        xp = namespace(rewards)
        ids = xp.broadcast_to(rollouts.groups[:, None], mask.shape)
        flat = (xp.reshape(each, (-1,)) for each in (rewards, ids, ends))
        alone = groups.standardize(*flat, correction=self.correction, eps=self.eps)
        summed = add_later_turns(xp.reshape(alone, mask.shape), ends, rollouts, 1.0)
        peers = groups.size(xp.any(mask, axis=-1), rollouts.groups, rewards.dtype)
        return xp.where(peers[:, None] < 2.0, 0.0, summed), mask
