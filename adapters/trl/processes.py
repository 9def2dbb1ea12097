"""Rows of this process and of all processes, in TRL's order: those of the first process first."""

from typing import Any

import torch

Tensor = torch.Tensor


def gather_rows(accelerator: Any, field: Tensor, padding: int = 0, pad_first: bool = False) -> Tensor:
    """The rows [N, ...] of all processes, padded to one width."""
    even = accelerator.pad_across_processes(field.contiguous(), dim=1, pad_index=padding, pad_first=pad_first)
    return accelerator.gather(even)


def own_rows(accelerator: Any, field: Tensor, rows: int) -> Tensor:
    """This process' rows [B, ...] of a field [N, ...] of all processes."""
    first = accelerator.process_index * rows
    return field[first : first + rows]
