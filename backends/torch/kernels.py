# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: the state of `vocab/state.py` in one read of the logits, and the statistics.

`state_kernel.py` has the formulas. A program owns one token and one part of its vocabulary. Each thread keeps
a state of its own over VEC neighboring entries (16 bytes), so the loop has neither a barrier nor a shuffle.
Tiles are loaded one round ahead, since few programs leave memory idle. Rows that start anywhere are read from
the boundary of 16 bytes before them on; where two models' rows lie differently, or columns lie apart, the
lanes lie side by side and read entry by entry. The number of parts follows from the vocabulary alone, so a
token's result does not depend on its batch, but for such a row's place in memory, which is a matter of
rounding. Contraction is off: equal models shall deviate by exactly 0.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from credit.backends import limits
from credit.backends.torch import strides
from credit.backends.torch.further_kernel import make_flags, store_further
from credit.backends.torch.head_kernel import give_scale
from credit.backends.torch.load_kernel import SPREAD, find_lead, finish_tiles, load_tiles, select_logit
from credit.backends.torch.state_kernel import add_tiles, merge_states, store_state, store_statistics
from credit.backends.vocab import by_name, state, tiles

Tensor = torch.Tensor

FIELDS = 2 * state.FIELDS  # of a stored state, in the order of `state.pack`
UNFUSED: Any = {"enable_fp_fusion": False}


@triton.jit
def fold_kernel(
    x_ptr, y_ptr, ids_ptr, half_ptr, out_ptr, rows, inner, start, size,
    x_outer, x_inner, x_column, y_outer, y_inner, y_column, x_bias_ptr, y_bias_ptr, scale, soft_cap,
    PARTS: tl.constexpr, LANES: tl.constexpr, VEC: tl.constexpr,
    PAIR: tl.constexpr, DENSE: tl.constexpr, WIDE: tl.constexpr, SHIFTED: tl.constexpr,
    FINISH: tl.constexpr, UNREAD: tl.constexpr,
    SQUARES: tl.constexpr, KL: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The state of each row's logits, of id `start` on, in PARTS parts; or the statistics (FINISH)."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = tl.load(ids_ptr + row).to(tl.int64)
    half = tl.load(half_ptr + row)
    c = half * 1.4426950408889634
    x_ptr += row // inner * x_outer + row % inner * x_inner
    y_ptr += row // inner * y_outer + row % inner * y_inner
    m = tl.full([LANES], -3.4028234663852886e38, tl.float32)
    a = tl.zeros([LANES], tl.float32)
    n, e, b, d, f, k, r = m, a, a, a, a, a, a
    tile: tl.constexpr = LANES * VEC
    step: tl.constexpr = 2 * tile
    lane, entry = tl.arange(0, LANES)[:, None], tl.arange(0, VEC)[None, :]
    first = lane * VEC + entry if WIDE else lane + entry * LANES
    place = token - start
    lead = None
    if SHIFTED:
        # The row is read from the boundary of 16 bytes before it on, with the entries before it masked.
        lead = find_lead(x_ptr)
        x_ptr, y_ptr = tl.multiple_of(x_ptr - lead, 16), tl.multiple_of(y_ptr - lead, 16)
        x_bias_ptr = None if x_bias_ptr is None else x_bias_ptr - lead
        y_bias_ptr = None if y_bias_ptr is None else y_bias_ptr - lead
        size += lead
        place += lead
    length = tl.cdiv(tl.cdiv(size + VEC * SHIFTED, step), PARTS) * step
    low = part * length
    high = tl.minimum(low + length, size)
    high = tl.where(token == UNREAD, low, high)
    here = (place >= low) & (place < high)
    if SHIFTED:
        here = here & (place >= lead)
        low += step
    full = low + tl.maximum(high - low, 0) // step * step
    # What is left over after whole steps comes first, its loads together with those of the first step where
    # they are wide. A shifted row's first step is of that kind too.
    if WIDE and not SHIFTED:
        x0, x1, y0, y1 = load_tiles(
            x_ptr, y_ptr, full, first, x_column, y_column, lead, high, tile, PAIR, DENSE, True
        )
        u0, u1, v0, v1 = load_tiles(
            x_ptr, y_ptr, low, first, x_column, y_column, lead, full, tile, PAIR, DENSE, True
        )
        x0, x1, y0, y1 = finish_tiles(
            x0, x1, y0, y1, x_bias_ptr, y_bias_ptr, scale, soft_cap, full, first, lead, high, tile, PAIR, True
        )
        m, a, e, n, b, d, f, k, r = add_tiles(
            m, a, e, n, b, d, f, k, r, x0, x1, y0, y1, c, PAIR, SQUARES, KL, REVERSE
        )
    else:
        earliest = low - step if SHIFTED else full
        for edge in range(earliest, high, tl.maximum(full - earliest, step)):
            x0, x1, y0, y1 = load_tiles(
                x_ptr, y_ptr, edge, first, x_column, y_column, lead, high, tile, PAIR, DENSE, True
            )
            x0, x1, y0, y1 = finish_tiles(
                x0, x1, y0, y1, x_bias_ptr, y_bias_ptr, scale, soft_cap, edge, first, lead, high,
                tile, PAIR, True,
            )  # fmt: skip
            m, a, e, n, b, d, f, k, r = add_tiles(
                m, a, e, n, b, d, f, k, r, x0, x1, y0, y1, c, PAIR, SQUARES, KL, REVERSE
            )
        u0, u1, v0, v1 = load_tiles(
            x_ptr, y_ptr, low, first, x_column, y_column, None, full, tile, PAIR, DENSE, True
        )
    for s in range(low, full, step):
        x0, x1, y0, y1 = u0, u1, v0, v1
        # The last round reads its own tiles again, which costs less than a mask in every round.
        ahead = tl.multiple_of(tl.minimum(s + step, full - step), step)
        u0, u1, v0, v1 = load_tiles(
            x_ptr, y_ptr, ahead, first, x_column, y_column, lead, high, tile, PAIR, DENSE, False
        )
        x0, x1, y0, y1 = finish_tiles(
            x0, x1, y0, y1, x_bias_ptr, y_bias_ptr, scale, soft_cap, s, first, lead, high, tile, PAIR, False
        )
        m, a, e, n, b, d, f, k, r = add_tiles(
            m, a, e, n, b, d, f, k, r, x0, x1, y0, y1, c, PAIR, SQUARES, KL, REVERSE
        )
    m, a, e, n, b, d, f, k, r = merge_states(m, a, e, n, b, d, f, k, r, c, SQUARES, KL, REVERSE)
    selected = select_logit(x_ptr, place, x_column, here, x_bias_ptr, scale, soft_cap)
    reference_selected = select_logit(y_ptr, place, y_column, here, y_bias_ptr, scale, soft_cap)
    if FINISH:
        store_statistics(
            out_ptr, row, rows, half, m, a, e, selected, n, b, d, reference_selected, f, k, r,
            PAIR, SQUARES, KL, REVERSE,
        )  # fmt: skip
    else:
        p = out_ptr + (row * PARTS + part) * (8 + SQUARES + KL + REVERSE)
        store_state(p, m, a, selected, e, n, b, reference_selected, d)
        store_further(p + 8, 1, f, k, r, SQUARES, KL, REVERSE)


@triton.jit
def merge_parts_kernel(
    states_ptr, half_ptr, out_ptr, rows, parts, BLOCK: tl.constexpr,
    PAIR: tl.constexpr, SQUARES: tl.constexpr, KL: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The statistics of rows whose vocabulary is in parts."""
    row = tl.program_id(0).to(tl.int64)
    half = tl.load(half_ptr + row)
    part = tl.arange(0, BLOCK)
    p, there = states_ptr + (row * parts + part) * (8 + SQUARES + KL + REVERSE), part < parts
    m = tl.load(p, mask=there, other=-3.4028234663852886e38)
    a = tl.load(p + 1, mask=there, other=0.0)
    selected = tl.sum(tl.load(p + 2, mask=there, other=0.0), 0)
    e = tl.load(p + 3, mask=there, other=0.0)
    n = tl.load(p + 4, mask=there, other=-3.4028234663852886e38)
    b = tl.load(p + 5, mask=there, other=0.0)
    reference_selected = tl.sum(tl.load(p + 6, mask=there, other=0.0), 0)
    d = tl.load(p + 7, mask=there, other=0.0)
    f = tl.load(p + 8, mask=there, other=0.0) if SQUARES else d
    k = tl.load(p + 8 + SQUARES, mask=there, other=0.0) if KL else d
    r = tl.load(p + 8 + SQUARES + KL, mask=there, other=0.0) if REVERSE else d
    c = half * 1.4426950408889634
    m, a, e, n, b, d, f, k, r = merge_states(m, a, e, n, b, d, f, k, r, c, SQUARES, KL, REVERSE)
    store_statistics(
        out_ptr, row, rows, half, m, a, e, selected, n, b, d, reference_selected, f, k, r,
        PAIR, SQUARES, KL, REVERSE,
    )  # fmt: skip


def choose_parts(size: int) -> int:
    """Programs per row: from the vocabulary only, so that no token's result depends on its batch."""
    return (
        1 if size < limits.TRITON_TWO_PARTS_ENTRIES else 2 if size < limits.TRITON_FOUR_PARTS_ENTRIES else 4
    )


def statistics(
    x: Tensor,
    y: Tensor | None,
    ids: Tensor,
    half: Tensor,
    parts: int | None = None,
    *,
    also: Sequence[str] = (),
) -> Tensor:
    """[4 + also, ...]: log p, log q, H, d of x and y [..., V]; without y, log p, H, peak and ln A of x.

    `also` names fields of a state (`by_name.stored`), here and below; of one model there is but sum_squares.
    """
    if strides.is_scattered(x, x if y is None else y):
        rows = zip(x, [None] * len(x) if y is None else y, ids, half, strict=True)
        return torch.stack([statistics(*row, parts, also=also) for row in rows], 1)
    parts = parts or choose_parts(x.shape[-1])
    out = fold(x, y, ids, half, 0, parts, done=parts == 1, also=also)
    out = out if parts == 1 else merge_parts(out, half, pair=y is not None, also=also)
    return out.reshape(len(out), *ids.shape)


def fold(
    x: Tensor,
    y: Tensor | None,
    ids: Tensor,
    half: Tensor,
    start: int,
    parts: int,
    *,
    done: bool = False,
    also: Sequence[str] = (),
    x_bias: Tensor | None = None,
    y_bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> Tensor:
    """States [rows, parts, 8 + also] of logits [..., V'] from id `start` on; if done, as `statistics`.

    x and y may be a linear head's raw products, whose logits follow from bias [V'], scale and soft cap.
    """
    rows, pair = ids.numel(), y is not None
    y = x if y is None else y
    shape = (4 + len(also), rows) if done else (rows, parts, FIELDS + len(also))
    out = torch.empty(shape, dtype=torch.float32, device=x.device)
    divergences = by_name.has_divergences(also)
    registers = limits.TRITON_DIVERGENCE_REGISTERS if divergences else limits.TRITON_REGISTERS
    inner, (x_rows, y_rows) = strides.row_strides(x, y)
    dense = x.stride(-1) == y.stride(-1) == 1
    shifted = dense and strides.is_shifted(x, y, x_rows, y_rows)
    vector = max(1, 16 // max(x.element_size(), y.element_size())) if dense else SPREAD
    if rows:
        fold_kernel[(rows, parts)](
            x, y, flatten(ids), flatten(half), out, rows, inner, start, x.shape[-1],
            *x_rows, x.stride(-1), *y_rows, y.stride(-1),
            None if x_bias is None else x_bias.contiguous(), None if y_bias is None else y_bias.contiguous(),
            give_scale(scale), soft_cap, PARTS=parts, LANES=limits.TRITON_LANES,
            VEC=vector, PAIR=pair, FINISH=done, DENSE=dense, SHIFTED=shifted,
            WIDE=shifted or dense and strides.is_aligned(x, y, *x_rows, *y_rows),
            UNREAD=tiles.UNREAD, **make_flags(also, pair=pair), **choose_options(registers),
        )  # fmt: skip
    return out


def choose_options(registers: int, wavefront: int | None = None) -> dict[str, Any]:
    """How a fold is compiled: a lane is a thread, and a warp an AMD GPU's wavefront, which has no maxnreg."""
    if torch.version.hip is None and wavefront is None:
        return {**UNFUSED, "num_warps": limits.TRITON_WARPS, "maxnreg": registers}
    wavefront = wavefront or triton.runtime.driver.active.get_current_target().warp_size
    return {**UNFUSED, "num_warps": limits.TRITON_LANES // wavefront}


def merge_parts(states: Tensor, half: Tensor, *, pair: bool, also: Sequence[str] = ()) -> Tensor:
    """The statistics [4 + also, rows] from states [rows, parts, 8 + also]."""
    rows, parts, _ = states.shape
    out = torch.empty((4 + len(also), rows), dtype=torch.float32, device=states.device)
    meta = {**UNFUSED, **make_flags(also, pair=pair), "BLOCK": triton.next_power_of_2(parts), "num_warps": 1}
    if rows:
        merge_parts_kernel[(rows,)](states.contiguous(), flatten(half), out, rows, parts, PAIR=pair, **meta)
    return out


def flatten(per_token: Tensor) -> Tensor:
    """A number per token as a kernel reads it: [rows] without gaps."""
    return per_token.reshape(-1).contiguous()
