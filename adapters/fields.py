"""Fields of Rollouts as adapters see them: what takes a model's logits, and what a reference model."""

from credit.estimator import Estimator

STATISTICS = ("log_probs", "reference_log_probs", "normalized_entropy", "deviation")
OF_THE_REFERENCE = ("reference_log_probs", "deviation")
PROVIDED = (*STATISTICS, "rollout_log_probs", "turns", "progress")
"""What the pipelines of TRL, verl and OpenRLHF can fill in beside rewards, groups and mask."""


def statistics(estimator: Estimator) -> tuple[str, ...]:
    """What the estimator needs of every token, from the models."""
    return tuple(name for name in estimator.needs if name in STATISTICS)


def compares(estimator: Estimator) -> bool:
    """Whether a reference model has to be run."""
    return bool(set(estimator.needs) & set(OF_THE_REFERENCE))
