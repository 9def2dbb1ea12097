"""Which rows train: dynamic sampling asks the estimator, and rows without signal leave the loss."""

from typing import Any

import torch

import credit
from credit.adapters import rewards, traits
from credit.adapters.swift.rollouts import Batch, Groups
from credit.several_rewards import find_scored_rows

Tensor = torch.Tensor
ROW_MEANS = ("grpo", "sapo", "dr_grpo")
"""Values of --loss_type whose loss ms-swift divides by the number of rows, masked ones included."""
CORRECTION = "credit_row_mean_correction"  # the attribute of a micro-batch for it


def find_live_rows(
    estimator: credit.Estimator, given: Tensor, ids: Tensor, weights: Tensor, vary: bool
) -> Tensor:
    """The rows [N] in groups, by their ids [N], that the estimator keeps; with `vary`, whose rewards differ.

    Args:
        given: the rewards [N, K] of all functions, with their weights [K].
    """
    rollouts = credit.Rollouts(
        rewards.select_deciding(estimator, given, weights),
        ids,
        torch.ones((len(given), 1), dtype=torch.bool, device=given.device),
    )
    kept = estimator.keep(rollouts)
    return _spread(kept & credit.DAPO().keep(rollouts) if vary else kept, ids)


def choose_rows(trainer: Any, given: Tensor, groups: Groups) -> Tensor:
    """The rows [N] that take part: those with a finite reward, in training in groups that are kept.

    The share of groups that are not kept is logged.
    """
    estimator = trainer.credit.estimator
    stays = find_scored_rows(rewards.combine_rewards(estimator, given, trainer.reward_weights))
    if trainer.model.training and traits.filters_groups(estimator):
        live = find_live_rows(estimator, given, groups.ids, trainer.reward_weights, trainer.dynamic_sample)
        kept = len(groups.ids[live].unique()) / len(groups.ids.unique())
        trainer._metrics["train"]["credit/dropped_groups"].append(1.0 - kept)
        stays = stays & live
    return stays


def mask_dropped_rows(trainer: Any, batch: Batch, stays: Tensor, own: Tensor) -> None:
    """Takes the rows [N] that do not stay out of the masks and the normalizers of the loss.

    Args:
        own: [n], those of `stays` of this process.
    """
    if stays.all():
        return
    kept = batch.place(own[:, None].expand(batch.mask.shape))
    for each, row in zip(batch.batches, kept, strict=True):
        each.completion_mask = each.completion_mask & row.bool()
    count = sum(each.completion_mask.sum() for each in batch.batches)
    whole = trainer.accelerator.gather(count.float()).sum().clamp(min=1.0)  # ms-swift divides by it as it is
    for each in batch.batches:
        each.num_items_in_batch = whole
        if trainer.loss_type in ROW_MEANS:
            setattr(each, CORRECTION, len(stays) / max(int(stays.sum()), 1))


def row_mean_correction(grpo_batch: Any) -> float:
    """The factor that makes a micro-batch's loss, its KL term included, a mean over the rows that stay."""
    return float(getattr(grpo_batch, CORRECTION, 1.0))


def _spread(rows: Tensor, ids: Tensor) -> Tensor:
    """For each row [N] whether any row of its group is among `rows` [N]."""
    count = torch.zeros(int(ids.max()) + 1, dtype=torch.int64, device=rows.device)
    return count.index_add_(0, ids, rows.long())[ids] > 0
