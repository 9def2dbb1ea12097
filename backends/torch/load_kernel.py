# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: how a kernel reads a row's logits, or a linear head's products that become logits."""

import triton
import triton.language as tl

from credit.backends.torch.head_kernel import finish_logits


@triton.jit
def load(pointer, offsets, column, limit, DENSE: tl.constexpr, MASKED: tl.constexpr):
    """A row's entries as they lie in memory, with -inf from `limit` on if MASKED."""
    places = offsets if DENSE else offsets.to(tl.int64) * column
    if MASKED:
        return tl.load(pointer + places, mask=offsets < limit, other=-float("inf"))
    return tl.load(pointer + places)


@triton.jit
def load_tiles(
    x_ptr, y_ptr, offsets, x_column, y_column, limit,
    TILE: tl.constexpr, PAIR: tl.constexpr, DENSE: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Two tiles of each model, as they lie in memory."""
    x0 = load(x_ptr, offsets, x_column, limit, DENSE, MASKED)
    x1 = load(x_ptr, offsets + TILE, x_column, limit, DENSE, MASKED)
    y0 = load(y_ptr, offsets, y_column, limit, DENSE, MASKED) if PAIR else x0
    y1 = load(y_ptr, offsets + TILE, y_column, limit, DENSE, MASKED) if PAIR else x1
    return x0, x1, y0, y1


@triton.jit
def finish_tiles(
    x0, x1, y0, y1, x_bias_ptr, y_bias_ptr, scale, soft_cap, offsets, limit,
    TILE: tl.constexpr, PAIR: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Logits of what `load_tiles` read."""
    other = offsets + TILE
    x0 = finish_logits(x0, x_bias_ptr, offsets, offsets < limit, scale, soft_cap, MASKED)
    x1 = finish_logits(x1, x_bias_ptr, other, other < limit, scale, soft_cap, MASKED)
    if PAIR:
        y0 = finish_logits(y0, y_bias_ptr, offsets, offsets < limit, scale, soft_cap, MASKED)
        y1 = finish_logits(y1, y_bias_ptr, other, other < limit, scale, soft_cap, MASKED)
    return x0, x1, y0, y1


@triton.jit
def select_logit(x_ptr, place, column, here, bias_ptr, scale, soft_cap):
    """The logit at a place, or 0 if it is not here."""
    product = tl.load(x_ptr + place * column, mask=here, other=0.0).to(tl.float32)
    return tl.where(here, finish_logits(product, bias_ptr, place, here, scale, soft_cap, True), 0.0)
