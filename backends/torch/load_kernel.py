# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: how a kernel reads a row's logits, or a linear head's products that become logits."""

import triton
import triton.language as tl

from credit.backends.torch.head_kernel import finish_logits

# Entries of a lane's tile where columns lie apart, each with an address of its own: more would spill.
SPREAD = 4


@triton.jit
def find_lead(pointer):
    """How many entries lie between a row's first one and the boundary of 16 bytes at or before it."""
    size: tl.constexpr = pointer.dtype.element_ty.primitive_bitwidth // 8
    return (pointer.to(tl.int64) % 16 // size).to(tl.int32)


@triton.jit
def load(pointer, offsets, column, limit, DENSE: tl.constexpr):
    """A row's entries as they lie in memory, -inf from `limit` on."""
    places = offsets if DENSE else offsets.to(tl.int64) * column
    return tl.load(pointer + places, mask=offsets < limit, other=-float("inf"))


@triton.jit
def _load_tile(pointer, base, first, column, lead, limit, DENSE: tl.constexpr, MASKED: tl.constexpr):
    """Entries base + first [LANES, VEC]; if MASKED, -inf before `lead`, if any, and from `limit` on."""
    if DENSE:
        inside = is_inside(base + first, lead, limit)
        pointers = pointer + (base + first)
        entries = tl.load(pointers, mask=inside, other=-float("inf")) if MASKED else tl.load(pointers)
    else:
        # SPREAD loads side by side: of a tile of them, Triton may share a lane's entries out among threads.
        lanes: tl.constexpr = first.shape[0]
        tl.static_assert(first.shape[1] == 4)
        start = pointer + tl.cast(base, tl.int64) * column
        e0 = _load_column(start, column, limit - base, 0, lanes, MASKED)
        e1 = _load_column(start, column, limit - base, lanes, lanes, MASKED)
        e2 = _load_column(start, column, limit - base, 2 * lanes, lanes, MASKED)
        e3 = _load_column(start, column, limit - base, 3 * lanes, lanes, MASKED)
        entries = tl.reshape(tl.join(tl.join(e0, e2), tl.join(e1, e3)), first.shape)
    return entries


@triton.jit
def _load_column(pointer, column, limit, SHIFT: tl.constexpr, LANES: tl.constexpr, MASKED: tl.constexpr):
    places = SHIFT + tl.arange(0, LANES)
    pointers = pointer + places.to(tl.int64) * column
    return tl.load(pointers, mask=places < limit, other=-float("inf")) if MASKED else tl.load(pointers)


@triton.jit
def is_inside(offsets, lead, limit):
    """Which of the offsets are of the row; without a lead it starts at 0."""
    return offsets < limit if lead is None else (offsets >= lead) & (offsets < limit)


@triton.jit
def load_tiles(
    x_ptr, y_ptr, base, first, x_column, y_column, lead, limit,
    TILE: tl.constexpr, PAIR: tl.constexpr, DENSE: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Two tiles of each model from entry `base` on, as they lie in memory."""
    x0 = _load_tile(x_ptr, base, first, x_column, lead, limit, DENSE, MASKED)
    x1 = _load_tile(x_ptr, base + TILE, first, x_column, lead, limit, DENSE, MASKED)
    y0 = _load_tile(y_ptr, base, first, y_column, lead, limit, DENSE, MASKED) if PAIR else x0
    y1 = _load_tile(y_ptr, base + TILE, first, y_column, lead, limit, DENSE, MASKED) if PAIR else x1
    return x0, x1, y0, y1


@triton.jit
def finish_tiles(
    x0, x1, y0, y1, x_bias_ptr, y_bias_ptr, scale, soft_cap, base, first, lead, limit,
    TILE: tl.constexpr, PAIR: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Logits of what `load_tiles` read."""
    one, other = base + first, base + TILE + first
    x0 = finish_logits(x0, x_bias_ptr, one, is_inside(one, lead, limit), scale, soft_cap, MASKED)
    x1 = finish_logits(x1, x_bias_ptr, other, is_inside(other, lead, limit), scale, soft_cap, MASKED)
    if PAIR:
        y0 = finish_logits(y0, y_bias_ptr, one, is_inside(one, lead, limit), scale, soft_cap, MASKED)
        y1 = finish_logits(y1, y_bias_ptr, other, is_inside(other, lead, limit), scale, soft_cap, MASKED)
    return x0, x1, y0, y1


@triton.jit
def select_logit(x_ptr, place, column, here, bias_ptr, scale, soft_cap):
    """The logit at a place, or 0 if it is not here."""
    product = tl.load(x_ptr + place * column, mask=here, other=0.0).to(tl.float32)
    return tl.where(here, finish_logits(product, bias_ptr, place, here, scale, soft_cap, True), 0.0)
