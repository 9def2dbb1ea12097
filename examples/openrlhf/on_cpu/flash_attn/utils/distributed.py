"""Tensors of several ranks gathered on all of them, with a gradient."""

from typing import Any

import torch
import torch.distributed as dist

Tensor = torch.Tensor


class Gather(torch.autograd.Function):
    """Joins the ranks' tensors. Backward sums their gradients and takes the own part, as flash-attn does."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, values.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        whole = gradient.contiguous().clone()
        dist.all_reduce(whole, group=ctx.group)
        return whole.chunk(dist.get_world_size(ctx.group))[dist.get_rank(ctx.group)], None


def all_gather(values: Tensor, group: dist.ProcessGroup) -> Tensor:
    """values [N, ...] of each of R ranks as [R N, ...]."""
    return Gather.apply(values, group)
