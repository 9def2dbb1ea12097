"""GRPO's advantage, its size on each token set by a teacher that knows more."""

from math import log1p
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from credit.backends.arrays import namespace
from credit.estimators.on_baseline import OnBaseline
from credit.estimators.teachers import FIELD, Teacher, compare_log_probs
from credit.loss import PolicyLoss
from credit.schedule import Fraction, evaluate_setting
from credit.types import Array, Rollouts


class RLSD(OnBaseline):
    """RLVR with Self-Distillation: the reward gives a token's direction, a teacher the size of its step.

        A_{i,t} = A_i w_{i,t},  w_{i,t} = 1 - mixing + mixing clip(exp(sign(A_i) x_{i,t}), 1 - clip, 1 + clip)
        x = log q_teacher - log p,  A_i = (r_i - mean_group(r)) / (std_group(r) + eps)

    The teacher is the policy itself, or a copy of it from some steps ago, that also sees the right answer.
    In a response with a positive advantage, tokens that it finds likelier gain more; in one with a negative
    advantage, they lose less. The weights of a response do not average 1, so its credit is not kept. The
    paper lets mixing fall linearly from 0.5 to 0 over the first 50 steps; a Schedule falls over the whole
    run.

    A log-prob below -1e12 counts as -1e12: a token that one model excludes gets the clip's bound, and one
    that both exclude 1. The metrics `teacher_log_ratio_mean` and `_max` are those of x.

    Source: arXiv 2604.03128, as its authors' code and ms-swift have it.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.ones((2, 2), bool),
        ...     log_probs=np.array([[-1.0, -1.0], [-1.0, -1.0]]),
        ...     extra={"teacher_log_probs": np.array([[-0.5, -2.0], [-0.5, -2.0]])},
        ... )
        >>> credit.RLSD(mixing=1.0, correction=0, eps=0.0)(rollouts).advantages.round(3).tolist()
        [[1.2, 0.8], [-0.8, -1.2]]
    """

    redistributes: ClassVar[bool] = False
    row_local: ClassVar[bool] = False  # the sign of A_i, which the group decides, turns the weights
    blockwise: ClassVar[bool] = True
    name: Literal["rlsd"] = "rlsd"
    loss: PolicyLoss = PolicyLoss(clip_high=0.28, aggregation="token_mean")
    """The policy loss of the authors' code: clip to [0.8, 1.28], mean over all tokens of the batch."""
    teacher: Teacher = "extra"
    """Whose log-probs q are: `extra.teacher_log_probs`, or those of the reference model."""
    mixing: Fraction = 0.5
    """Share of the teacher's weight in a token's, a number in [0, 1] or a Schedule; 0 is GRPO."""
    clip: Annotated[float, Field(gt=0)] = 0.2
    """A weight of the teacher's is within 1 - clip and 1 + clip."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("log_probs", FIELD[self.teacher])

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        ratios = compare_log_probs(rollouts, self.teacher)
        xp = namespace(ratios)
        # An exponent a little beyond the clip's keeps exp finite.
        signed = xp.clip(xp.sign(advantages)[:, None] * ratios, max=log1p(self.clip) + 1.0)
        evidence = xp.clip(xp.exp(signed), min=1.0 - self.clip, max=1.0 + self.clip)
        mixing = evaluate_setting(self.mixing, rollouts)
        return 1.0 + mixing * (evidence - 1.0)

    def observed(self, rollouts: Rollouts) -> dict[str, Array]:
        """The log-ratio x of teacher and policy."""
        return {"teacher_log_ratio": compare_log_probs(rollouts, self.teacher)}
