"""verl's engine with strategy=fsdp on a CPU, where FSDP 1 cannot copy rank 0's weights to the others itself.

Importing it registers the engine. What FSDP 1 gathers, frees and casts stays its own.
"""

import torch
from torch import distributed
from torch.distributed.fsdp import FullyShardedDataParallel
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl


class FSDPOnCPU(FullyShardedDataParallel):
    """Copies the weights before it shards them, which FSDP 1 does on GPUs alone; they are offloaded anyway."""

    def __init__(self, module, *, param_init_fn, sync_module_states, device_id, cpu_offload, **options):
        if distributed.get_rank() != 0:  # verl loads the weights on rank 0
            module.to_empty(device="cpu", recurse=True)
        for tensor in (*module.parameters(), *module.buffers()):
            distributed.broadcast(tensor.detach(), src=0)
        super().__init__(module, device_id=torch.device("cpu"), **options)


@EngineRegistry.register(model_type="language_model", backend=["fsdp"], device="cpu")
class CPUEngine(transformer_impl.FSDPEngineWithLMHead):
    """FSDPEngineWithLMHead, as it is."""


transformer_impl.FSDP = FSDPOnCPU
