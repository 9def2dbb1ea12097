"""Token statistics: exact ones in the pass for the old log-probs, or what verl's own passes leave behind."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

import credit
from credit.adapters.verl import hidden_states, logits_hook
from credit.adapters.verl.sources import HIDDEN_STATES
from credit.adapters.verl.whole_heads import find_plain_head, is_own_unit

Tensor = torch.Tensor

KEY = hidden_states.KEY
"""What precedes the name of a statistic in verl's batch."""


def collect_statistics(
    actor: Any, reference: Any, data: Any, fields: Sequence[str], memory_mb: float
) -> AbstractContextManager[None]:
    """Adds the named statistics as credit_<name> to what the actor's next `infer_batch(data)` returns.

    `actor` and `reference` are verl's TrainingWorkers; if there is no reference, it is the actor's
    model without its LoRA adapter. From hidden states they are computed in tiles of `memory_mb`.
    """
    if actor.engine.engine_config.strategy == "megatron":
        from credit.adapters.verl import megatron_logits  # which needs megatron-core, as FSDP does not

        return megatron_logits.collect_statistics(actor, reference, data, fields)
    if _find_obstacle(actor, reference):
        return logits_hook.collect_statistics(actor, reference, data, fields)
    return hidden_states.collect_statistics(actor, reference, data, fields, memory_mb)


def refuse_without_logits(actor: Any, reference: Any) -> None:
    """Raises ValueError where options leave no logits and the models do not allow for hidden states."""
    engine = actor.engine
    fused = engine.model_config.use_fused_kernels
    for option, place, chosen in (
        ("use_fused_kernels", "model", fused),
        ("pad_to_length", "actor.fsdp_config", getattr(engine.engine_config, "pad_to_length", False)),
    ):
        obstacle = _find_obstacle(actor, reference) if chosen else None
        if obstacle:
            way_out = f"set actor_rollout_ref.{place}.{option}=False"
            raise ValueError(f"{option}=True leaves no logits to compare, and {obstacle}; {way_out}")
    lost = _find_lost_by_fused_kernels(engine) if fused else None
    if lost:
        way_out = "set actor_rollout_ref.model.use_fused_kernels=False"
        raise ValueError(f"verl's fused kernels {lost}; {way_out}")


def _find_obstacle(actor: Any, reference: Any) -> str | None:
    """Why hidden states do not give the statistics, if they do not."""
    for worker in (actor, reference):
        if worker is None:
            continue
        strategy = worker.engine.engine_config.strategy
        if strategy not in HIDDEN_STATES:
            return f"hidden states are read with strategy={' or '.join(HIDDEN_STATES)}, not with {strategy}"
        try:
            find_plain_head(worker.engine)
        except ValueError as error:
            return str(error)
    return None


def _find_lost_by_fused_kernels(engine: Any) -> str | None:
    """What keeps verl's fused kernels from the logits of this model: they read its lm_head's weight alone."""
    if is_own_unit(engine):
        return (
            "read the weight of lm_head, of which strategy=fsdp2 leaves a shard unless it is tied to the "
            "embeddings; set actor_rollout_ref.actor.strategy=fsdp and actor_rollout_ref.ref.strategy=fsdp"
        )
    head = find_plain_head(engine)
    parts = {"bias": head.bias is not None, "scale": head.scale != 1.0, "soft cap": head.soft_cap is not None}
    lost = [name for name, there in parts.items() if there]
    return f"leave out the {' and the '.join(lost)} of this model's logits" if lost else None


OF_PASSES = ("old_log_probs", "ref_log_prob", "entropy")
"""verl's names of what its own passes give per token."""


def derive_from_passes(
    arrays: Mapping[str, Tensor], names: Sequence[str], vocabulary_size: int
) -> dict[str, Tensor]:
    """The statistics [N, T] of those names, as far as arrays named as in `OF_PASSES` give them.

    The deviation is that of the sampled token against all others, a lower bound of the exact one.
    """
    found = dict[str, Tensor]()
    policy, reference = arrays.get("old_log_probs"), arrays.get("ref_log_prob")
    if policy is not None:
        found["log_probs"] = policy
    if reference is not None:
        found["reference_log_probs"] = reference
    if policy is not None and reference is not None:
        found["deviation"] = credit.binary_deviation(policy, reference)
    if "entropy" in arrays:
        found["extra.entropy"] = arrays["entropy"]
        found["normalized_entropy"] = (found["extra.entropy"] / math.log(vocabulary_size)).clamp(0.0, 1.0)
    return {name: found[name] for name in names if name in found}
