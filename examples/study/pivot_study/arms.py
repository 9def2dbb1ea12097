"""The arms: rules that turn what is known of a batch's tokens into weights of mean 1 per response."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from estimator_study.models import Parameters
from torch import Tensor

import credit
from pivot_study.policy import GROUP, Cell, Responses, compute_logits

HALF = 0.5  # the effective fraction of tokens at which rules are compared: equally uneven weights


@dataclass(frozen=True)
class Seen:
    """A batch, and three models that judge its tokens; a statistic [N, T] is computed when it is read."""

    cell: Cell
    responses: Responses
    policy: Parameters
    half_way: Parameters  # the policy half-way between the reference and now
    reference: Parameters
    generator: torch.Generator  # of the shuffled weights

    def _logits(self, parameters: Parameters) -> Tensor:
        with torch.no_grad():
            return compute_logits(self.cell, parameters, self.responses.prompts, self.responses.ids)

    @cached_property
    def _now(self) -> Tensor:
        return self._logits(self.policy)

    @cached_property
    def _then(self) -> Tensor:
        return self._logits(self.half_way)

    @cached_property
    def _first(self) -> Tensor:
        return self._logits(self.reference)

    @cached_property
    def _compared(self) -> tuple[credit.TokenStatistics, dict[str, Tensor]]:
        return credit.token_statistics(self._now, self._first, self.responses.ids, also=("sum_squares",))

    @property
    def statistics(self) -> credit.TokenStatistics:
        """Of the policy against the frozen reference."""
        return self._compared[0]

    @property
    def deviation(self) -> Tensor:
        return self.statistics.deviation

    @property
    def entropy(self) -> Tensor:
        return self.statistics.normalized_entropy

    @property
    def sum_squares(self) -> Tensor:
        return self._compared[1]["sum_squares"]

    @cached_property
    def recent_deviation(self) -> Tensor:
        """From the policy half-way, which is what a reference that follows slowly would be."""
        return credit.token_statistics(self._now, self._then, self.responses.ids).deviation

    @cached_property
    def early_deviation(self) -> Tensor:
        """Of the policy half-way from the reference."""
        return credit.token_statistics(self._then, self._first, self.responses.ids).deviation

    @cached_property
    def reference_entropy(self) -> Tensor:
        return credit.token_statistics(self._first, None, self.responses.ids).normalized_entropy


class Scored(credit.Redistributing):
    """Credit by a score that is given."""

    name: Literal["pivot_study_scored"] = "pivot_study_scored"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("extra.score",)

    def score(self, rollouts: credit.Rollouts) -> Any:
        return rollouts.extra["score"]


def weigh(estimator: credit.Estimator, seen: Seen) -> Tensor:
    """An estimator's weights of a batch."""
    extra = {"sum_squares": seen.sum_squares}
    rollouts = seen.responses.rollouts(**seen.statistics._asdict(), extra=extra)
    return estimator(rollouts).weights


def weigh_by(score: Callable[[Seen], Tensor]) -> Callable[[Seen], Tensor]:
    """Weights by a score at an effective fraction of one half."""

    def weights(seen: Seen) -> Tensor:
        rollouts = seen.responses.rollouts(extra={"score": score(seen)})
        return Scored(effective_fraction=HALF)(rollouts).weights

    return weights


def _by_estimator(estimator: credit.Estimator) -> Callable[[Seen], Tensor]:
    return lambda seen: weigh(estimator, seen)


def _shuffle(seen: Seen) -> Tensor:
    """The weights of `dgpo half`, in an order drawn anew for each response."""
    weights = weigh(credit.DGPO(effective_fraction=HALF), seen)
    order = torch.rand(weights.shape, generator=seen.generator).argsort(1)
    return weights.gather(1, order)


def weigh_pivots(responses: Responses) -> Tensor:
    """All credit on the pivots; a response without one keeps even weights."""
    pivots = responses.pivots.float()
    count = pivots.sum(1, keepdim=True)
    even = torch.ones_like(pivots)
    return torch.where(count > 0, pivots * pivots.shape[1] / count.clamp(min=1), even)


def _group_mean(seen: Seen) -> Tensor:
    """The deviation averaged over the responses of the group, position by position."""
    groups = seen.deviation.unflatten(0, (-1, GROUP))
    return groups.mean(1, keepdim=True).expand_as(groups).flatten(0, 1)


def relative_deviation(seen: Seen) -> Tensor:
    """d over what noise in the logits would make of it at that token, up to a factor: 1 - sum p^2."""
    return seen.deviation / (1.01 - seen.sum_squares)


def _persistent(seen: Seen) -> Tensor:
    """The inner product of the early and the recent move of sqrt(p), where it is positive."""
    return (seen.deviation - seen.recent_deviation - seen.early_deviation).clamp(min=0.0)


ARMS: dict[str, Callable[[Seen], Tensor]] = {
    "grpo": lambda seen: torch.ones(seen.responses.ids.shape),
    "dgpo 0.5": _by_estimator(credit.DGPO(tau=0.5)),
    "dgpo 0.1": _by_estimator(credit.DGPO(tau=0.1)),
    "dgpo 0.02": _by_estimator(credit.DGPO(tau=0.02)),
    "dgpo half": _by_estimator(credit.DGPO(effective_fraction=HALF)),
    "dgpo half, shuffled": _shuffle,
    "entropy half": weigh_by(lambda seen: seen.entropy),
    "deviation half": _by_estimator(credit.DGPO(kappa=0.0, effective_fraction=HALF)),
    "reference's entropy half": weigh_by(lambda seen: seen.deviation * seen.reference_entropy),
    "following reference half": weigh_by(lambda seen: seen.recent_deviation * seen.entropy),
    "mean over steps half": weigh_by(lambda seen: seen.deviation + seen.early_deviation),
    "mean over group half": weigh_by(_group_mean),
    "persistent half": weigh_by(_persistent),
    "relative half": weigh_by(relative_deviation),
    "oracle": lambda seen: weigh_pivots(seen.responses),
}
