"""DeepSpeed on a CPU without the parts of it that have to be compiled first."""

from typing import Any

import deepspeed
import torch
from deepspeed.ops import adam


def adam_w(parameters: Any, *, adam_w_mode: bool, **settings: Any) -> torch.optim.AdamW:
    """torch's own, in place of the fused one."""
    return torch.optim.AdamW(parameters, **settings)


adam.FusedAdam = adam_w
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo sends instead
