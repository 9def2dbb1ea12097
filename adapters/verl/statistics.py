"""Token statistics: exact ones in the pass for the old log-probs, or what verl's own passes leave behind."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

import credit
from credit.adapters.verl import logits_hook

Tensor = torch.Tensor

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
