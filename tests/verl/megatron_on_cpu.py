"""verl's Megatron engine on a CPU: stand-ins for CUDA, and the engine in verl's registry for the CPU.

Importing it makes megatron-core ask the CPU for what it would ask CUDA for (tiny_megatron). The models are
in megatron_models, in place of Megatron-Bridge, which needs Transformer Engine.
"""

import sys

import megatron_models
import ulysses_attention  # noqa: F401  (which imports verl with its CPU platform)

for name in (
    "verl.models.mcore.bridge",
    *("megatron.bridge" + part for part in ("", ".peft", ".peft.utils")),
):
    sys.modules[name] = megatron_models

from verl.workers.engine.base import EngineRegistry  # noqa: E402
from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead  # noqa: E402


@EngineRegistry.register(model_type="language_model", backend="megatron", device="cpu")
class CPUEngine(MegatronEngineWithLMHead):
    """MegatronEngineWithLMHead, as it is."""
