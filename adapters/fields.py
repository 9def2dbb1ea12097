"""Fields of Rollouts as adapters see them: what takes a model's logits, and what a reference model."""

from credit.estimators.base import Estimator

STATISTICS = ("log_probs", "reference_log_probs", "normalized_entropy", "deviation")
REFERENCE_FIELDS = ("reference_log_probs", "deviation")
PROVIDED = (*STATISTICS, "rollout_log_probs", "turns", "progress")
"""What the pipelines of TRL, verl and OpenRLHF can fill in beside rewards, groups and mask."""


def needed_statistics(estimator: Estimator) -> tuple[str, ...]:
    """What the estimator needs of every token, from the models."""
    return tuple(name for name in estimator.needs if name in STATISTICS)


def needs_reference(estimator: Estimator) -> bool:
    """Whether a reference model has to be run."""
    return bool(set(estimator.needs) & set(REFERENCE_FIELDS))
