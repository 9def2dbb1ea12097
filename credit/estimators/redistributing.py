"""From a score per token to weights that average 1: the step that DGPO and similar estimators share."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from credit import tokens
from credit.backends.arrays import as_type, namespace
from credit.estimators.on_baseline import OnBaseline
from credit.estimators.targets import describe_target
from credit.schedule import Positive, Share, evaluate_setting
from credit.settings import refuse_without_effect
from credit.types import Array, Rollouts


class Redistributing(OnBaseline):
    """Base class of the estimators that distribute A_i by a softmax over a score per token.

        A_{i,t} = A_i w_{i,t}        w_{i,t} = T_i softmax_t(s_{i,t} / tau)

    A_i is GRPO's, or that of the `base`. A subclass gives itself a name and overrides `score`, and `needs`
    with the fields that the score reads. Extensions, which are off by default: another base, a target for
    the effective token fraction in place of tau, another rule for responses with negative advantages, and
    redistribution within each turn.

    Example:
        >>> from typing import Literal
        >>> import numpy as np
        >>> import credit
        >>> class Surprising(credit.Redistributing):
        ...     name: Literal["surprising"] = "surprising"
        ...     @property
        ...     def needs(self):
        ...         return ("log_probs", *self.turn_fields)
        ...     def score(self, rollouts):
        ...         return -rollouts.log_probs
        >>> ones = np.ones((2, 2))
        >>> rollouts = credit.Rollouts(
        ...     ones[0], np.array([0, 0]), ones, log_probs=np.log([[0.25, 0.75], [0.5, 0.5]])
        ... )
        >>> Surprising(tau=1.0)(rollouts).weights.round(3).tolist()
        [[1.5, 0.5], [1.0, 1.0]]
    """

    tau: Positive = 0.5
    """Temperature of the softmax in the unit of the score, a number or a Schedule; if it is infinite, all
    weights are 1."""
    effective_fraction: Share | None = None
    """Target in (0, 1) for (sum w)^2 / (T sum w^2), a number or a Schedule: each response gets the tau
    that reaches it, as far as `tau_min` and `floor` let it; the metrics `target_fraction` and
    `reached_fraction` tell. `tau` is not set then. None: no target."""
    tau_min: Annotated[float, Field(gt=0)] = 1e-3
    """Smallest tau that a target may lead to. A response whose scores spread by little more keeps weights
    nearer 1 than the target; `at_tau_min_mean` is the share of tokens in such responses."""
    floor: Annotated[float, Field(ge=0)] = 4e-5
    """A response whose scores spread by no more than this, times its largest gate, is taken for noise: a
    target leaves its weights at 1; `within_floor_mean` is the share of tokens in such responses."""
    negative: Literal["same", "uniform", "inverse"] = "same"
    """Responses with A_i < 0 get weights by the `same` rule, as in the papers, `uniform` weights, or the
    `inverse` rule, by which the lowest score gets the most blame."""
    within: Literal["response", "turn"] = "response"
    """`turn`: each turn keeps its own credit; the estimator then needs `turns`, integers in 0..T-1."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        aimless = self.effective_fraction is None
        no_target = "without effective_fraction" if aimless else None
        uniform = "with tau=inf, which makes every weight 1" if aimless and self.tau == float("inf") else None
        reasons = {
            "tau": None if aimless else "with effective_fraction, which finds the tau of each response",
            "tau_min": no_target,
            "floor": no_target,
            "negative": uniform,
            "within": uniform,
        }
        refuse_without_effect(self, reasons)
        return self

    @property
    def turn_fields(self) -> tuple[str, ...]:
        """The fields that `within` needs, for a subclass to add to its `needs`."""
        return ("turns",) if self.within == "turn" else ()

    def score(self, rollouts: Rollouts) -> Array:
        """s [N, T]: the higher a token's score, the more of the response's credit it gets."""
        raise NotImplementedError(f"{type(self).__name__} gives no score; override score")

    def gate(self, rollouts: Rollouts) -> Array | float:
        """The factor of the score by which its noise grows, [N, T] or a number; `floor` is relative to it."""
        return 1.0

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        score = as_type(self.score(rollouts), advantages.dtype)  # a score of the user's may be of integers
        score = self._signed(score, advantages)
        mask = rollouts.mask
        turns = rollouts.turns if self.within == "turn" else None
        if self.effective_fraction is None:
            return tokens.redistribute(score, mask, evaluate_setting(self.tau, rollouts), turns)
        return tokens.redistribute_to_fraction(
            score,
            mask,
            evaluate_setting(self.effective_fraction, rollouts),
            tau_min=self.tau_min,
            floor=self._noise(rollouts, score),
            turns=turns,
        )

    @property
    def observes_weights(self) -> bool:
        return self.effective_fraction is not None

    def observed_weights(
        self, rollouts: Rollouts, advantages: Array | None, weights: Array
    ) -> dict[str, Array]:
        """The target and what is reached of it; see `credit.estimators.targets.describe_target`."""
        if self.effective_fraction is None:
            return {}
        xp, mask = namespace(weights), rollouts.mask
        aimed = xp.ones_like(rollouts.valid)[:, None]
        if self.negative == "uniform":
            given = self.advantages(rollouts) if advantages is None else advantages
            aimed = aimed & ~(given < 0.0)[:, None]
        turns = rollouts.turns if self.within == "turn" else None
        target = evaluate_setting(self.effective_fraction, rollouts)
        return describe_target(weights, mask, turns, target, aimed)

    def _signed(self, score: Array, advantages: Array) -> Array:
        if self.negative == "same":
            return score
        other = -score if self.negative == "inverse" else namespace(score).zeros_like(score)
        return namespace(score).where((advantages < 0.0)[:, None], other, score)

    def _noise(self, rollouts: Rollouts, score: Array) -> Any:
        xp = namespace(score)
        gate = xp.where(rollouts.mask, xp.zeros_like(score) + self.gate(rollouts), 0.0)
        return self.floor * xp.max(gate, axis=-1, keepdims=True)
