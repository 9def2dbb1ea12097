"""Token weights by the current policy, for the steps on a batch after its first."""

from typing import Any

import torch

import credit
from credit.adapters.trl import rollouts

Tensor = torch.Tensor
ROWS = "credit_advantages"  # in TRL's batch: A_i [B]


def recompute_advantages(trainer: Any, inputs: dict[str, Tensor]) -> Tensor:
    """A_i w_{i,t} [B, T] of a micro-batch: A_i from when it was sampled, w by the current policy."""
    estimator, given, mask = trainer.credit.estimator, inputs[ROWS], rollouts.token_mask(inputs)
    now = credit.Rollouts(
        rewards=given,
        groups=torch.zeros_like(given, dtype=torch.long),
        mask=mask,
        progress=rollouts.training_progress(trainer),
        **rollouts.token_fields(trainer, inputs, mask, "train"),
    )
    advantages, weights = estimator.factors(now, given)
    return advantages[:, None] * weights
