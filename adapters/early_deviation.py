"""Whether the reference is another model than the one that training begins with."""

from typing import Any

import credit

ROUNDING = 1e-3  # a larger deviation before the first step means that the reference is another model


def find_early_deviation(trainer: Any, given: credit.Rollouts) -> str | None:
    """In words, how far the policy deviates from its reference before the first step; None: not at all.

    The trainer is one of transformers', whose `state` counts steps.
    """
    begins = trainer.model.training and trainer.state.global_step == 0
    return describe_early_deviation(given) if begins else None


def describe_early_deviation(given: credit.Rollouts) -> str | None:
    """As `find_early_deviation`, of rollouts that were sampled before the first step."""
    if given.deviation is None:
        return None
    largest = given.deviation.max().item()
    if not largest > ROUNDING:
        return None
    return (
        f"before the first step the policy deviates from its reference by up to {largest:.3g} (squared "
        "Hellinger distance; 0 expected)"
    )
