"""Distribution-Guided Policy Optimization."""

from typing import ClassVar, Literal

from credit.backends.arrays import namespace
from credit.estimators.redistributing import Redistributing
from credit.schedule import NonNegative, evaluate_setting
from credit.types import Array, Rollouts


class DGPO(Redistributing):
    """Distribution-Guided Policy Optimization: credit moves to tokens that deviate and are uncertain.

        s_{i,t} = d_{i,t} h_{i,t}^kappa        w_{i,t} = T_i softmax_t(s_{i,t} / tau)
        A_{i,t} = A_i w_{i,t},  A_i = (r_i - mean_group(r)) / (std_group(r) + eps)

    d is the squared Hellinger distance 1 - sum_v sqrt(p_v q_v) between policy and reference (the paper
    calls it the Hellinger distance), and h = H(p) / log V. The weights of a response average 1, so the
    credit of the response is kept. DGPO becomes GRPO as tau grows to infinity, and where the policy equals
    its reference; kappa = 0 leaves the deviation alone. The paper's best tau lie in 0.5 .. 1.0, and
    its loss has no KL penalty. With a `base` A_i is another estimator's. Source: arXiv 2605.03327.

    d and h are small in practice: at tau = 0.5 the weights change noticeably (std > 0.1) only from a d of
    about 0.1 on. The metrics weight_std and effective_token_fraction tell how much DGPO changes; a target
    for the latter is set by `effective_fraction`.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> rollouts = credit.Rollouts(
        ...     rewards=np.array([1.0, 0.0]),
        ...     groups=np.array([0, 0]),
        ...     mask=np.array([[True, True], [True, True]]),
        ...     deviation=np.array([[0.2, 0.1], [0.1, 0.1]]),
        ...     normalized_entropy=np.ones((2, 2)),
        ... )
        >>> credit.DGPO(tau=0.1)(rollouts).weights.round(3).tolist()
        [[1.462, 0.538], [1.0, 1.0]]
    """

    blockwise: ClassVar[bool] = True
    name: Literal["dgpo"] = "dgpo"
    kappa: NonNegative = 1.0
    """Exponent of the normalized entropy, a number or a Schedule; 0 ignores the entropy."""

    @property
    def needs(self) -> tuple[str, ...]:
        own = ("deviation", "normalized_entropy") if self.kappa else ("deviation",)
        return tuple(dict.fromkeys((*own, *self.turn_fields, *self.base_fields)))

    def score(self, rollouts: Rollouts) -> Array:
        return rollouts.deviation * self.gate(rollouts)

    def gate(self, rollouts: Rollouts) -> Array:
        """h^kappa [N, T]."""
        if not self.kappa:
            return namespace(rollouts.deviation).ones_like(rollouts.deviation)
        h = rollouts.normalized_entropy
        return h if self.kappa == 1.0 else h ** evaluate_setting(self.kappa, rollouts)

    def observed(self, rollouts: Rollouts) -> dict[str, Array]:
        """The deviation and the gate h^kappa."""
        return {"deviation": rollouts.deviation, "gate": self.gate(rollouts)}
