"""Token statistics in the pass for the old log-probs, by the way that fits the worker's engine."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from credit.adapters.verl import logits_hook

KEY = logits_hook.KEY
"""What precedes the name of a statistic in verl's batch."""


def collect_statistics(
    actor: Any, reference: Any, data: Any, fields: Sequence[str]
) -> AbstractContextManager[None]:
    """Adds the named statistics as credit_<name> to what the actor's next `infer_batch(data)` returns.

    `actor` and `reference` are verl's TrainingWorkers; if there is no reference, it is the actor's
    model without its LoRA adapter.
    """
    if actor.engine.engine_config.strategy == "megatron":
        from credit.adapters.verl import megatron_logits  # which needs megatron-core, as FSDP does not

        return megatron_logits.collect_statistics(actor, reference, data, fields)
    return logits_hook.collect_statistics(actor, reference, data, fields)
