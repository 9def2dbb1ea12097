"""verl's FSDP2 engine on a CPU with gloo."""

from functools import wraps
from typing import Any

import verl.utils.distributed as distributed
import verl.utils.fsdp_utils as fsdp_utils
from torch.distributed.fsdp import CPUOffloadPolicy
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl

initialize = distributed.initialize_global_process_group_ray
save_shards = fsdp_utils.fsdp2_sharded_save_to_cpu


@wraps(initialize)
def with_gloo(timeout_second: Any = None, backend: str | None = None) -> Any:
    """verl would ask for "cpu:gloo,cpu:gloo", which torch refuses."""
    return initialize(timeout_second, backend or "gloo")


def unpinned(pin_memory: bool = True) -> CPUOffloadPolicy:
    """Without an accelerator there is nothing to pin memory for."""
    return CPUOffloadPolicy(pin_memory=False)


@wraps(save_shards)
def save_copies(model: Any) -> Any:
    """What verl puts aside and takes back later is on the CPU already, so nothing would be copied."""
    shards, placement = save_shards(model)
    return {name: (shard.clone(), spec) for name, (shard, spec) in shards.items()}, placement


@EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device="cpu")
class CPUEngine(transformer_impl.FSDPEngineWithLMHead):
    """FSDPEngineWithLMHead, as it is."""


distributed.initialize_global_process_group_ray = with_gloo
fsdp_utils.fsdp2_sharded_save_to_cpu = save_copies
transformer_impl.CPUOffloadPolicy = unpinned
