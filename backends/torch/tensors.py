"""Tensors as memory: whether one is plain memory, tensors of numpy's memory, and the axis that vmap adds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Tensor = torch.Tensor


def is_plain(tensor: Tensor) -> bool:
    """Whether this is memory, not a stand-in: no subclass, and neither traced nor within torch.func.

    What a function within torch.func closes over is memory, but all that is computed from it is a stand-in.
    """
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def find_fault(tensor: Tensor) -> str | None:
    """As `arrays.find_fault`: a tensor that is no dense array of its own numbers on this process."""
    if type(tensor).__name__ in ("DTensor", "MaskedTensor"):
        return f"a torch {type(tensor).__name__}"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"a tensor of layout {tensor.layout}"
    return "a quantized tensor" if tensor.is_quantized else None


def is_inspectable(tensor: Tensor) -> bool:
    """Whether values can be read at no cost: plain, and on a CPU."""
    return tensor.device.type == "cpu" and is_plain(tensor)


def from_numpy(array: Any) -> Tensor:
    """The numpy array, or number, as a tensor of the same memory."""
    return torch.from_numpy(np.asarray(array))


def move_batch_axes(info: Any, axes: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The axis that vmap maps over as the first axis of rows of every tensor; None is a tensor without it."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        for tensor, axis in zip(tensors, axes, strict=True)
    ]
