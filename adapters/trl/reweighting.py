"""Token weights by the current policy, for the steps on a batch after its first."""

from typing import Any

import torch

import credit
from credit.adapters import traits
from credit.adapters.trl import rollouts
from credit.fields import replace_arrays

Tensor = torch.Tensor
ROWS = "credit_advantages"  # in TRL's batch: A_i [B, K] of the K parts of a mix; another estimator is one


def row_advantages(trainer: Any, given: credit.Rollouts) -> Tensor:
    """A_i [N, K] of the estimator's parts, as `recompute_advantages` takes them."""
    parts = traits.list_parts(trainer.credit.estimator)
    return torch.stack([part.estimator.factors(given)[0] for part in parts], dim=1)


def follow_policy(trainer: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a loss with advantages by the current policy, if they were made for an earlier step."""
    if ROWS not in inputs or trainer.state.global_step == trainer.credit.weights_step:
        return inputs
    return inputs | {"advantages": recompute_advantages(trainer, inputs)}


def recompute_advantages(trainer: Any, inputs: dict[str, Tensor]) -> Tensor:
    """A_i w_{i,t} [B, T] of a micro-batch: A_i from when it was sampled, w by the current policy."""
    parts, mask = traits.list_parts(trainer.credit.estimator), rollouts.token_mask(inputs)
    each = inputs[ROWS].reshape(len(mask), -1).unbind(dim=1)  # [B] in a checkpoint of release 0.1
    now = credit.Rollouts(
        rewards=each[0],
        groups=torch.zeros_like(each[0], dtype=torch.long),
        mask=rollouts.scored_mask(trainer, inputs, mask),
        progress=rollouts.training_progress(trainer),
    )
    now = replace_arrays(now, rollouts.token_fields(trainer, inputs, mask, "train"))
    total = torch.zeros_like(mask, dtype=each[0].dtype)
    for part, given in zip(parts, each, strict=True):
        advantages, weights = part.estimator.factors(now._replace(rewards=given), given)
        total = total + part.factor * advantages[:, None] * weights
    return total
