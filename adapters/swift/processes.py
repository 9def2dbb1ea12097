"""Rows of this process and of all processes, in ms-swift's order: those of the first process first."""

from typing import Any

import torch

Tensor = torch.Tensor


def gather_rows(accelerator: Any, field: Tensor) -> Tensor:
    """The rows [N, ...] of all processes, padded to one width; one process may have more than another."""
    count = torch.tensor([len(field)], device=field.device)
    even = accelerator.pad_across_processes(field.contiguous(), dim=1) if field.ndim > 1 else field
    even = accelerator.pad_across_processes(even.contiguous(), dim=0)
    whole = accelerator.gather(even).unflatten(0, (-1, len(even)))
    counts = accelerator.gather(count).tolist()
    return torch.cat([rows[:n] for rows, n in zip(whole, counts, strict=True)])
