"""Exact token statistics in the pass for the old log-probs, in the way that engine and models allow."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from credit.adapters.verl import hidden_states, logits_hook
from credit.adapters.verl.sources import HIDDEN_STATES
from credit.adapters.verl.whole_heads import find_plain_head, is_own_unit


def collect_statistics(
    actor: Any, reference: Any, data: Any, fields: Sequence[str], memory_mb: float | None
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
    fused = actor.engine.model_config.use_fused_kernels
    padded = getattr(actor.engine.engine_config, "pad_to_length", False)
    option = "model.use_fused_kernels" if fused else "actor.fsdp_config.pad_to_length"
    way_out = f"set actor_rollout_ref.{option}=False"
    obstacle = _find_obstacle(actor, reference) if fused or padded else None
    if obstacle:
        raise ValueError(f"{option}=True leaves no logits to compare, and {obstacle}; or {way_out}")
    if fused:
        _refuse_lost_by_fused_kernels(actor.engine, way_out)


def _find_obstacle(actor: Any, reference: Any) -> str | None:
    """Why hidden states do not give the statistics, and the way out; None if they do."""
    for worker in (actor, reference):
        if worker is None:
            continue
        strategy = worker.engine.engine_config.strategy
        if strategy not in HIDDEN_STATES:
            known = " or ".join(HIDDEN_STATES)
            return f"hidden states are read with strategy={known}, not with {strategy}; take one of these"
        try:
            find_plain_head(worker.engine)
        except ValueError as error:
            return str(error)
    return None


def _refuse_lost_by_fused_kernels(engine: Any, way_out: str) -> None:
    """Raises ValueError if logits take more than the weight of lm_head, which verl's fused kernels read."""
    if is_own_unit(engine):
        raise ValueError(
            "verl's fused kernels read the weight of lm_head, of which strategy=fsdp2 leaves a shard unless "
            "it is tied to the embeddings; set actor_rollout_ref.actor.strategy=fsdp and "
            f"actor_rollout_ref.ref.strategy=fsdp, or {way_out}"
        )
    head = find_plain_head(engine)
    parts = {"bias": head.bias is not None, "scale": head.scale != 1.0, "soft cap": head.soft_cap is not None}
    lost = " and the ".join(name for name, there in parts.items() if there)
    if lost:
        raise ValueError(f"verl's fused kernels leave out the {lost} of this model's logits; {way_out}")
