"""verl's Megatron engine on a CPU: stand-ins for CUDA, and the engine in verl's registry for the CPU.

Importing it makes megatron-core ask the CPU for what it would ask CUDA for. The models are in
megatron_models, in place of Megatron-Bridge, which needs Transformer Engine.
"""

import sys
from contextlib import nullcontext

import megatron_models
import torch
import ulysses_attention  # noqa: F401  (which imports verl with its CPU platform)
from megatron.core import tensor_parallel
from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
from torch.overrides import TorchFunctionMode

for name in (
    "verl.models.mcore.bridge",
    *("megatron.bridge" + part for part in ("", ".peft", ".peft.utils")),
):
    sys.modules[name] = megatron_models


class OnCPU(TorchFunctionMode):
    """Makes on the CPU what is asked for on CUDA."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def nothing(*_, **__):
    pass


torch.cuda.current_device = lambda: "cpu"
torch.cuda.synchronize = nothing
torch.Tensor.cuda = lambda tensor, *_, **__: tensor
tensor_parallel.model_parallel_cuda_manual_seed = nothing
CudaRNGStatesTracker.fork = lambda *_: nullcontext()
OnCPU().__enter__()

from verl.workers.engine.base import EngineRegistry  # noqa: E402
from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead  # noqa: E402


@EngineRegistry.register(model_type="language_model", backend="megatron", device="cpu")
class CPUEngine(MegatronEngineWithLMHead):
    """MegatronEngineWithLMHead, as it is."""
