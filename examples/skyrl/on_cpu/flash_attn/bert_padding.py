"""Packed rows and back, in plain torch."""

from typing import Any

import torch

Tensor = torch.Tensor


def unpad_input(values: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, int, Any]:
    """The tokens [M, ...] of values [B, T, ...], where they were, and where each row starts."""
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    starts = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return values.flatten(0, 1)[indices], indices, starts, int(lengths.max()), lengths


def pad_input(values: Tensor, indices: Tensor, batch: int, seqlen: int) -> Tensor:
    """values [M, ...] put back to [batch, seqlen, ...], with zeros elsewhere."""
    whole = values.new_zeros(batch * seqlen, *values.shape[1:]).index_copy(0, indices, values)
    return whole.unflatten(0, (batch, seqlen))
