# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: `array_api.postprocess` in one launch."""

from math import log

import torch
import triton
import triton.language as tl

from credit.backends import limits
from credit.backends.torch.kernels import UNFUSED, flatten
from credit.backends.vocab import tiles

Tensor = torch.Tensor


@triton.jit
def postprocess_kernel(
    log_p_ptr, log_q_ptr, entropy_ptr, deviation_ptr, ids_ptr, out_ptr, rows, size, scale,
    MASKED: tl.constexpr, UNREAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """See `array_api.postprocess`; scale is 1 / ln V."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = row < rows
    token = tl.load(ids_ptr + row, mask=there, other=0).to(tl.int64)
    known = (token >= 0) & (token < size)
    log_p = tl.where(known, tl.load(log_p_ptr + row, mask=there, other=0.0), float("nan"))
    log_q = tl.where(known, tl.load(log_q_ptr + row, mask=there, other=0.0), float("nan"))
    entropy = tl.load(entropy_ptr + row, mask=there, other=0.0) * scale
    entropy = tl.where(entropy > 1.0, 1.0, entropy)
    deviation = tl.load(deviation_ptr + row, mask=there, other=0.0)
    if MASKED:
        read = token != UNREAD
        log_p, log_q = tl.where(read, log_p, 0.0), tl.where(read, log_q, 0.0)
        entropy, deviation = tl.where(read, entropy, 0.0), tl.where(read, deviation, 0.0)
    tl.store(out_ptr + row, log_p, mask=there)
    tl.store(out_ptr + rows + row, log_q, mask=there)
    tl.store(out_ptr + 2 * rows + row, entropy, mask=there)
    tl.store(out_ptr + 3 * rows + row, deviation, mask=there)


def postprocess(fields: tuple[Tensor, ...], ids: Tensor, size: int, masked: bool) -> Tensor:
    """[4, ...]: as `array_api.postprocess`; if `masked`, tokens with the id UNREAD get 0."""
    out = torch.empty((4, *ids.shape), dtype=torch.float32, device=ids.device)
    rows, block = ids.numel(), limits.TRITON_POSTPROCESS_ROWS
    if rows:
        postprocess_kernel[(triton.cdiv(rows, block),)](
            *map(flatten, fields), flatten(ids), out, rows, size, 1.0 / log(size) if size > 1 else 0.0,
            MASKED=masked, UNREAD=tiles.UNREAD, BLOCK=block, num_warps=limits.TRITON_WARPS, **UNFUSED,
        )  # fmt: skip
    return out
