"""DeepSpeed on a CPU without the parts of it that have to be compiled first."""

from typing import Any

import deepspeed
import torch
from deepspeed.ops import adam
from deepspeed.runtime.zero.partition_parameters import Init


def adam_w(parameters: Any, *, adam_w_mode: bool, **settings: Any) -> torch.optim.AdamW:
    """torch's own, in place of the fused one."""
    return torch.optim.AdamW(parameters, **settings)


def one_by_one(self: Init, parameters: Any, hierarchy: int = 0, quantize: bool = False) -> None:
    """Gathers ZeRO-3's parameters in turn: on gloo DeepSpeed waits for the last of several only."""
    self._allgather_params_sequential(parameters, hierarchy=hierarchy)


adam.FusedAdam = adam_w
Init._allgather_params_coalesced = one_by_one
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo sends instead
