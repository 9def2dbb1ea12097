"""Whether the effective fraction of tokens that is aimed at is reached, as metrics and as a warning."""

from collections.abc import Mapping
from typing import Any

from credit import tokens
from credit.backends.arrays import as_type, is_inspectable, namespace
from credit.hints import warn_once
from credit.types import Array

TOLERANCE = 0.01  # a fraction that is higher than the target by more has missed it
MISSED_SHARE = 0.1  # of the tokens; a batch in which no more miss their target is not worth a warning
REASONS = {
    "within_floor": "in responses (or turns) whose scores spread by no more than the noise (floor), so that "
    "their weights stay 1, as wherever the policy is still its reference. If this lasts, the policy hardly "
    "deviates, and the weights do nothing",
    "at_tau_min": "in responses (or turns) for which tau_min is too high, or which have too many tokens of "
    "equal score, so that their weights stay nearer 1. A lower tau_min comes nearer the target, but spreads "
    "the credit by smaller differences between scores",
}


def describe_target(
    weights: Array, mask: Array, turns: Array | None, target: Any, aimed: Array
) -> dict[str, Array]:
    """What the weights [N, T] reach, per response or turn, as values [N, T] for `Estimator.observed`.

    `target_fraction` is the target and `reached_fraction` is (sum w)^2 / (T sum w^2). A missed target is
    marked with 1 in `within_floor`, where all weights are 1, or in `at_tau_min`. Rows that are not `aimed`
    [N, 1], and single tokens, have a target of 1.
    """
    xp = namespace(weights)
    _, total, peak = tokens.make_reducers(mask, turns)
    everywhere = xp.zeros_like(weights)
    count, sums, squares = total(everywhere + 1.0), total(weights), total(weights * weights)
    reached = sums * sums / xp.where(count * squares == 0.0, 1.0, count * squares)
    goal = xp.where(aimed & (count > 1.5), target + xp.zeros_like(count), 1.0)
    missed, flat = reached > goal + TOLERANCE, peak(xp.abs(weights - 1.0)) == 0.0
    return {
        "target_fraction": everywhere + goal,
        "reached_fraction": everywhere + reached,
        "within_floor": everywhere + as_type(missed & flat, weights.dtype),
        "at_tau_min": everywhere + as_type(missed & ~flat, weights.dtype),
    }


def warn_of_missed_targets(metrics: Mapping[str, Any], stacklevel: int = 2) -> None:
    """One warning per process and reason, where many tokens miss the target of `effective_fraction`.

    Metrics whose values are on an accelerator, or traced, are not read.
    """
    for name, value in metrics.items():
        for reason, text in REASONS.items():
            if not name.endswith(f"{reason}_mean") or not is_inspectable(value):
                continue
            share = float(value)
            if share > MISSED_SHARE:
                warn_once(
                    reason,
                    f"effective_fraction is missed by {share:.0%} of the tokens, {text}. The metrics "
                    f"reached_fraction_mean and {name} follow it",
                    stacklevel + 1,
                )
