"""From a score per token to weights of mean 1: the step that DGPO and its kin share."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from credit import tokens
from credit.backends.arrays import namespace
from credit.estimators.group_relative import GroupRelative
from credit.schedule import bounded, evaluate_setting
from credit.types import Array, Rollouts


class Redistributing(GroupRelative):
    """A_{i,t} = A_i T_i softmax_t(s_{i,t} / tau): override `score`, and `needs`, and give it a name.

    Extensions, off by default: a target for the effective token fraction in place of a tau, another
    rule for responses with negative advantage, and redistribution inside each turn.
    """

    tau: bounded(above=0.0) = 0.5  # type: ignore[valid-type]
    """Temperature of the softmax, a number or a Schedule."""
    effective_fraction: bounded(above=0.0, below=1.0) | None = None  # type: ignore[valid-type]
    """Target of (sum w)^2 / (T sum w^2), reached per response by its own tau; `tau` is then unused."""
    tau_min: Annotated[float, Field(gt=0)] = 1e-3
    """Smallest tau that a target may lead to."""
    floor: Annotated[float, Field(ge=0)] = 4e-5
    """Score spread, over the largest gate of the response, below which a target leaves weights at 1."""
    negative: Literal["same", "uniform", "inverse"] = "same"
    """Where A_i < 0: `same` rule (the papers'), `uniform` weights, or most blame on the lowest score."""
    within: Literal["response", "turn"] = "response"
    """`turn`: each turn keeps its own credit (needs `turns`, integers in 0..T-1)."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        for name in ("tau_min", "floor"):
            set_by_hand = getattr(self, name) != type(self).model_fields[name].default
            if set_by_hand and self.effective_fraction is None:
                raise ValueError(f"{name} has no effect without effective_fraction; leave it out")
        return self

    @property
    def turn_fields(self) -> tuple[str, ...]:
        """What `within` adds to an estimator's `needs`."""
        return ("turns",) if self.within == "turn" else ()

    def score(self, rollouts: Rollouts) -> Array:
        """s [N, T]: the higher, the more of the response's credit."""
        raise NotImplementedError(f"{type(self).__name__} gives no score")

    def gate(self, rollouts: Rollouts) -> Array | float:
        """What scales the score's noise, [N, T] or a number."""
        return 1.0

    def weights(self, rollouts: Rollouts, advantages: Array) -> Array:
        score = self._signed(self.score(rollouts), advantages)
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

    def _signed(self, score: Array, advantages: Array) -> Array:
        if self.negative == "same":
            return score
        other = -score if self.negative == "inverse" else namespace(score).zeros_like(score)
        return namespace(score).where((advantages < 0.0)[:, None], other, score)

    def _noise(self, rollouts: Rollouts, score: Array) -> Any:
        xp = namespace(score)
        gate = xp.where(rollouts.mask, xp.zeros_like(score) + self.gate(rollouts), 0.0)
        return self.floor * xp.max(gate, axis=-1, keepdims=True)
