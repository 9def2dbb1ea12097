# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: the gradient of log-probs and entropy; `vocab/gradients.py` is the reference."""

from typing import Any

import torch
import triton
import triton.language as tl

from credit.backends import limits
from credit.backends.torch import strides
from credit.backends.torch.head_kernel import finish_logits_and_slopes, give_scale
from credit.backends.torch.kernels import UNFUSED, flatten
from credit.backends.torch.load_kernel import load

Tensor = torch.Tensor


@triton.jit
def grad_logits_kernel(
    x_ptr, ids_ptr, half_ptr, residuals_ptr, grad_output_ptr, grad_logits_ptr, rows, inner, start, size,
    x_outer, x_inner, x_column, bias_ptr, scale, soft_cap, BLOCK: tl.constexpr, DENSE: tl.constexpr,
):  # fmt: skip
    """`gradients.grad_logits` for log p and H; x is not read where the gradients in both are 0."""
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    grad_log_prob, grad_entropy = tl.load(grad_output_ptr + row), tl.load(grad_output_ptr + rows + row)
    entropy, peak = tl.load(residuals_ptr + rows + row), tl.load(residuals_ptr + 2 * rows + row)
    log_total, inverse = tl.load(residuals_ptr + 3 * rows + row), 2.0 * tl.load(half_ptr + row)
    needed = (grad_log_prob != 0.0) | (grad_entropy != 0.0)
    x_ptr += row // inner * x_outer + row % inner * x_inner
    limit = tl.where(needed, size, 0)
    x = load(x_ptr, offsets, x_column, limit, DENSE).to(tl.float32)
    x, slope = finish_logits_and_slopes(x, bias_ptr, offsets, offsets < limit, scale, soft_cap)
    place = tl.load(ids_ptr + row) - start
    place = tl.where((place >= 0) & (place < size), place, -1).to(tl.int32)
    log_p = inverse * (x - peak) - log_total
    p = tl.exp2(log_p * 1.4426950408889634)
    # p ln p is 0 where p is, which it is long before -200.
    share = p * tl.fma(tl.maximum(log_p, -200.0) + entropy, inverse * grad_entropy, inverse * grad_log_prob)
    grad = tl.where(offsets == place, inverse * grad_log_prob, 0.0) - share
    if scale is not None or soft_cap is not None:
        grad = grad * slope
    grad = tl.where(needed, grad, 0.0).to(grad_logits_ptr.dtype.element_ty)
    tl.store(grad_logits_ptr + row * size + offsets, grad, mask=offsets < size)


def grad_logits(
    x: Tensor,
    ids: Tensor,
    half: Tensor,
    residuals: Tensor,
    grad_output: Tensor,
    start: int,
    dtype: Any,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> Tensor:
    """The gradient [..., V'] in x, whose first column has id `start`; in the products if x are a head's.

    The residuals [4, ...] are what `statistics` gives for one model; grad_output [2, ...] is of log p and H.
    """
    if strides.is_scattered(x):
        each = zip(x, ids, half, residuals.unbind(1), grad_output.unbind(1), strict=True)
        head: Any = {"bias": bias, "scale": scale, "soft_cap": soft_cap}
        return torch.stack([grad_logits(*row, start, dtype, **head) for row in each])
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    inner, (x_rows,) = strides.row_strides(x)
    rows, block = ids.numel(), limits.TRITON_GRADIENT_ENTRIES
    if rows:
        grad_logits_kernel[(rows, triton.cdiv(x.shape[-1], block))](
            x, flatten(ids), flatten(half), residuals.contiguous(), grad_output.contiguous(), out, rows,
            inner, start, x.shape[-1], *x_rows, x.stride(-1),
            None if bias is None else bias.contiguous(), give_scale(scale), soft_cap,
            BLOCK=block, DENSE=x.stride(-1) == 1, num_warps=limits.TRITON_WARPS, **UNFUSED,
        )  # fmt: skip
    return out
