"""Distillation of a teacher on the policy's own samples."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from credit import tokens
from credit.backends.arrays import namespace
from credit.estimators.group_relative import BASELINE_SETTINGS, GroupRelative
from credit.estimators.teachers import FIELD, Teacher, compare_log_probs
from credit.loss import PolicyLoss
from credit.settings import refuse_without_effect
from credit.types import Array, Rollouts


class OPD(GroupRelative):
    """On-Policy Distillation: each sampled token is rewarded by how much likelier the teacher finds it.

        A_{i,t} = outcome_weight A_i + teacher_weight G_{i,t},  G_{i,t} = x_{i,t} + gamma G_{i,t+1}
        x = log q_teacher - log p,  A_i = (r_i - mean_group(r)) / (std_group(r) + eps)

    The mean of x over samples of the policy is -KL(p, q), and the expected gradient of the term with
    gamma = 0 is that of -KL(p, q) at each state. With outcome_weight=0 it stands alone, and in a `mix` it is
    added to any other estimator.

    What teaches is that x depends on the token that was sampled. The KL divergence of the whole vocabulary
    in its place, as a penalty on the advantage, depends on the state alone, and its expected gradient is 0:
    sum_v p_v grad log p_v = grad sum_v p_v = 0. It would only add noise. Its place is in the loss, where it
    is differentiated.

    A log-prob below -1e12, as of a token that a model gives no probability, counts as -1e12, so that x is
    finite; `largest_log_ratio` keeps such a token from outweighing the batch. The metrics
    `teacher_log_ratio_mean` and `_max` are those of x.

    Sources: Thinking Machines, "On-Policy Distillation" (October 2025), whose tinker-cookbook has gamma as
    `kl_discount_factor`; with the outcome's advantage MOPD, arXiv 2601.02780. Where a response has holes,
    gamma counts the tokens of the mask.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 2), bool),
        ...     log_probs=np.array([[-1.0, -2.0], [-1.0, -1.0]]),
        ...     extra={"teacher_log_probs": np.array([[-0.5, -2.25], [-3.0, -1.0]])},
        ... )
        >>> credit.OPD(outcome_weight=0)(rollouts).advantages.tolist()
        [[0.5, -0.25], [-2.0, 0.0]]
        >>> credit.OPD(correction=0, eps=0.0)(rollouts).advantages.tolist()
        [[1.5, 0.75], [-3.0, -1.0]]
    """

    redistributes: ClassVar[bool] = False
    scale_invariant: ClassVar[bool] = False
    name: Literal["opd"] = "opd"
    loss: PolicyLoss = PolicyLoss(aggregation="token_mean")
    """tinker-cookbook's loss is the sum over all tokens of the ratio times the advantage, without a clip; the
    clip of 0.2 is inactive on the first step."""
    teacher: Teacher = "extra"
    """Whose log-probs q are: `extra.teacher_log_probs`, of any model with the policy's vocabulary, or those
    of the reference model, which is then the teacher."""
    teacher_weight: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the log-ratio."""
    outcome_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the advantage A_i of the rewards; 0: distillation alone."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Discount per token of the log-ratios of later tokens; 0: a token has its own alone."""
    largest_log_ratio: Annotated[float, Field(gt=0)] | None = None
    """Extension: a log-ratio counts as at most this many nats in size. None: there is no bound."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        reason = None if self.outcome_weight else "with outcome_weight=0"
        refuse_without_effect(self, dict.fromkeys(BASELINE_SETTINGS, reason))
        return self

    @property
    def ignores_group_constants(self) -> bool:
        return not self.outcome_weight

    @property
    def needs(self) -> tuple[str, ...]:
        return ("log_probs", FIELD[self.teacher])

    def assign(self, rollouts: Rollouts) -> tuple[Array, Array]:
        mask, ratios = rollouts.mask, compare_log_probs(rollouts, self.teacher)
        most = self.largest_log_ratio
        if most is not None:
            ratios = namespace(ratios).clip(ratios, min=-most, max=most)
        distilled = self.teacher_weight * tokens.returns_to_go(ratios, mask, self.gamma)
        if not self.outcome_weight:
            return distilled, mask
        return self.outcome_weight * self.advantages(rollouts)[:, None] + distilled, mask

    def observed(self, rollouts: Rollouts) -> dict[str, Array]:
        """The log-ratio x of teacher and policy, whose negative mean estimates KL(p, q)."""
        return {"teacher_log_ratio": compare_log_probs(rollouts, self.teacher)}
