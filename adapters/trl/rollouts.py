"""From TRL's generated batch to what an estimator takes."""

import time
from typing import Any

import torch

import credit
from credit.adapters.trl import options, rewards, statistics

Tensor = torch.Tensor


def rollouts_for_filter(trainer: Any, output: dict[str, Tensor]) -> credit.Rollouts:
    """Rewards, without the overlong penalty, groups and mask of all processes: what `keep` decides by."""
    size = trainer.num_generations
    given = rewards.combine_rewards(trainer, size, penalty=False)
    return credit.Rollouts(given, _group_ids(given, size), gather_rows(trainer, token_mask(output)))


def make_rollouts(
    trainer: Any, output: dict[str, Tensor], mode: str, valid: Tensor, every: bool = False
) -> credit.Rollouts:
    """The rollouts of all processes, in TRL's order: groups are contiguous. `valid` [N] take part."""
    mask = token_mask(output)
    fields = {"mask": mask} | token_fields(trainer, output, mask, mode, every)
    size = group_size(trainer, mode)
    given = rewards.combine_rewards(trainer, size)
    return credit.Rollouts(
        rewards=given,
        groups=_group_ids(given, size),
        valid=valid,
        progress=training_progress(trainer),
        **{name: gather_rows(trainer, field) for name, field in fields.items()},
    )


def token_fields(
    trainer: Any, output: dict[str, Tensor], mask: Tensor, mode: str, every: bool = False
) -> dict[str, Tensor]:
    """The fields [B, T] that the estimator needs, or `every` one that is there, of this process' rows."""
    needs, fields = trainer.credit_estimator.needs, dict[str, Tensor]()
    if options.needs_statistics(trainer.credit_estimator):
        started = time.perf_counter()
        scores = statistics.compute_statistics(trainer, output, mask)
        fields |= {name: field for name, field in scores.items() if every or name in needs}
        trainer._metrics[mode]["credit/statistics_seconds"].append(time.perf_counter() - started)
    if "rollout_log_probs" in needs:
        fields["rollout_log_probs"] = output["sampling_per_token_logps"]
    if "turns" in needs:
        fields["turns"] = credit.tokens.turns(mask)
    return fields


def token_mask(output: dict[str, Tensor]) -> Tensor:
    """The tokens [B, T] that the policy chose: no padding, no output of tools."""
    return output["completion_mask"] * output.get("tool_mask", 1)


def has_finite_rewards(given: Tensor) -> Tensor:
    """Which rows [N] have all their rewards, [N] or [N, K]."""
    return given.isfinite().view(len(given), -1).all(dim=1)


def group_size(trainer: Any, mode: str) -> int:
    """Completions per prompt."""
    return trainer.num_generations if mode == "train" else trainer.num_generations_eval


def training_progress(trainer: Any) -> Tensor:
    """How far the training is, in [0, 1], as a 0-d array."""
    state = trainer.state
    return torch.tensor(state.global_step / max(state.max_steps, 1), device=trainer.accelerator.device)


def gather_rows(trainer: Any, field: Tensor) -> Tensor:
    """The rows [N, ...] of all processes, padded to one width."""
    accelerator = trainer.accelerator
    return accelerator.gather(accelerator.pad_across_processes(field.contiguous(), dim=1))


def _group_ids(given: Tensor, size: int) -> Tensor:
    return torch.arange(len(given), device=given.device) // size
