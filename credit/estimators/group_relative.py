"""GRPO and its near kin: one advantage per response, relative to its group, the same for every token."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit import groups
from credit.estimators.base import Estimator
from credit.estimators.execute import prepare_rows
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class GroupRelative(Estimator):
    """A_i = (r_i - mean_group) / (std_group + eps), shared by every estimator that starts from it."""

    scale_invariant: ClassVar[bool] = True

    correction: Literal[0, 1] = 1
    """1 for the sample deviation (as the frameworks have it), 0 for the population's."""
    eps: Annotated[float, Field(ge=0)] = 1e-6

    def advantages(self, rollouts: Rollouts) -> Array:
        return groups.standardize(
            require_single_reward(self, rollouts),
            rollouts.groups,
            rollouts.valid,
            correction=self.correction,
            eps=self.eps,
        )


class GRPO(GroupRelative):
    """Group Relative Policy Optimization: the reward standardised within the prompt's group.

        A_{i,t} = A_i = (r_i - mean_group(r)) / (std_group(r) + eps)

    A group of one, or one whose rewards are all equal, gives exactly 0. Loss: PPO clip 0.2, mean
    over a response's tokens, then over responses. Source: arXiv 2402.03300.
    """

    blockwise: ClassVar[bool] = True
    name: Literal["grpo"] = "grpo"


class DrGRPO(Estimator):
    """Dr. GRPO: the centred reward, without the division by the deviation that favours easy groups.

        A_{i,t} = A_i = r_i - mean_group(r)

    Loss: PPO clip 0.2, sum over a response's tokens divided by a constant length (`loss.horizon`),
    so that long wrong responses are not punished less per token. Source: arXiv 2503.20783.
    """

    blockwise: ClassVar[bool] = True
    name: Literal["dr_grpo"] = "dr_grpo"
    loss: PolicyLoss = PolicyLoss(aggregation="fixed_horizon")

    def advantages(self, rollouts: Rollouts) -> Array:
        return groups.center(require_single_reward(self, rollouts), rollouts.groups, rollouts.valid)


class DAPO(GroupRelative):
    """Decoupled clip and dynamic sampling: GRPO's advantage with DAPO's loss and its filter of groups.

        A_{i,t} = A_i = (r_i - mean_group(r)) / (std_group(r) + eps)
        keep_i  = max_group(r) > min_group(r)

    `loss` clips to [1 - 0.2, 1 + 0.28] and takes one mean over all tokens; `keep` marks the groups
    that carry a signal; `credit.overlong_penalty` shapes the rewards. Each is to be had by itself.
    Source: arXiv 2503.14476.
    """

    blockwise: ClassVar[bool] = True
    name: Literal["dapo"] = "dapo"
    loss: PolicyLoss = PolicyLoss(clip_high=0.28, aggregation="token_mean")

    def keep(self, rollouts: Rollouts) -> Array:
        """True [N] for rows of a group in which some reward varies over its valid rows."""
        rollouts = prepare_rows(self, rollouts, ())
        rewards, ids, valid = rollouts.rewards, rollouts.groups, rollouts.valid
        if rewards.ndim == 1:
            return groups.varies(rewards, ids, valid)
        result = groups.varies(rewards[:, 0], ids, valid)
        for column in range(1, rewards.shape[1]):
            result = result | groups.varies(rewards[:, column], ids, valid)
        return result


def require_single_reward(estimator: Estimator, rollouts: Rollouts) -> Array:
    """The rewards [N]; a ValueError where there are several per response."""
    if rollouts.rewards.ndim != 1:
        raise ValueError(
            f"{estimator.name} takes one reward per response; rewards have shape "
            f"{tuple(rollouts.rewards.shape)}, so sum or weigh them first"
        )
    return rollouts.rewards
