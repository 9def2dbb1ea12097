"""Which implementation takes which tensors."""

from typing import Any

import torch

from credit.backends import limits
from credit.backends.vocab import tiles

Tensor = torch.Tensor


def uses_kernels(*logits: Tensor) -> bool:
    """Whether the Triton kernels take these: CUDA tensors, unless all are float64."""
    return logits[0].is_cuda and tiles.computing_dtype(*logits) == torch.float32


def is_on_cpu(*tensors: Tensor) -> bool:
    """Whether these are CPU tensors."""
    return all(tensor.device.type == "cpu" for tensor in tensors)


def import_ops() -> Any:
    """The operators of the Triton kernels; an ImportError names the cause if Triton cannot be imported."""
    try:
        from credit.backends.torch import ops
    except ImportError as error:
        raise ImportError(
            f"the kernels for CUDA tensors need Triton, which cannot be imported ({error}); "
            "CREDIT_BACKEND=array_api computes without it, slowly"
        ) from error
    return ops


def tile_entries(tensor: Tensor, on_cpu: int) -> int:
    """Entries of all rows per tile on the tensor's device, where a CPU takes so many."""
    return on_cpu if is_on_cpu(tensor) else limits.TORCH_ACCELERATOR_TILE_ENTRIES
