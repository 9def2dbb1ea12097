"""Weights of tokens by the policy as it is now, for steps on a batch after its first."""

from typing import Any

import torch

import credit
from credit.adapters.trl import rollouts
from credit.estimators.prepare import prepare_rollouts

Tensor = torch.Tensor
ROWS = "credit_advantages"  # in TRL's batch: A_i [B]


def recompute_advantages(trainer: Any, inputs: dict[str, Tensor]) -> Tensor:
    """A_i w_{i,t} [B, T] of a micro-batch: A_i from when it was sampled, w from now."""
    estimator, given, mask = trainer.credit.estimator, inputs[ROWS], rollouts.token_mask(inputs)
    now = credit.Rollouts(
        rewards=given,
        groups=torch.zeros_like(given, dtype=torch.long),
        mask=mask,
        progress=rollouts.training_progress(trainer),
        **rollouts.token_fields(trainer, inputs, mask, "train"),
    )
    now = prepare_rollouts(estimator.name, now, estimator.required_fields)
    return given[:, None] * estimator.weights(now, now.rewards)
