"""GRPO's advantage, gated by how surprising the token was."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit.backends.arrays import namespace
from credit.estimators.on_baseline import OnBaseline
from credit.log_ratios import bound_log_probs
from credit.loss import PolicyLoss
from credit.types import Array, Rollouts


class Delightful(OnBaseline):
    """Delightful policy gradient: rare successes count in full, rare failures hardly, sure tokens by a half.

        A_{i,t} = A_i w_{i,t},  w_{i,t} = sigmoid(A_i (-log p_{i,t}) / eta)
        A_i = (r_i - mean_group(r)) / (std_group(r) + eps)

    The product of advantage and surprisal is the paper's delight. A failure that the policy hardly ever
    samples has little to unlearn, and would otherwise dominate the direction of the step. The weights lie
    in (0, 1), with 1/2 where log p is 0, so a step is up to half as long as GRPO's. The paper takes log p of
    the policy that is trained; here it is that of the policy that sampled, which is the same on the first
    step. A token of probability 0 has a weight of 1 in a success and of 0 in a failure.

    Source: arXiv 2603.14608.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 2), bool),
        ...     log_probs=np.array([[0.0, -5.0], [0.0, -5.0]]),
        ... )
        >>> credit.Delightful(correction=0, eps=0.0)(rollouts).advantages.round(3).tolist()
        [[0.5, 0.993], [-0.5, -0.007]]
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False  # the weights read A_i, which the group decides
    blockwise: ClassVar[bool] = True
    name: Literal["delightful"] = "delightful"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """The paper's policy gradient is a mean over actions, here tokens, and has no ratio to clip; the clip of
    0.2 is inactive on the first step."""
    eta: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the gate, in nats times standard deviations of the reward; 1 in the paper."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("log_probs",)

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        xp = namespace(advantages)
        delight = -advantages[:, None] * bound_log_probs(rollouts.log_probs) / self.eta
        small = xp.exp(-xp.abs(delight))  # never overflows
        return xp.where(delight < 0.0, small, xp.ones_like(small)) / (1.0 + small)
