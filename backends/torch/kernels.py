# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: the state of `vocab/state.py` in one read of the logits, and the statistics.

`vocab/state.py` is the reference for every formula here. Exponents are in base 2 (log2 e is 1.4427), so the
moment E is in units of ln 2, and 2 ln 2 = 1.3863 turns it into nats. A program owns one token and one part of
its vocabulary. Each thread keeps a state of its own over VEC neighboring entries (16 bytes; without that
alignment the lanes lie side by side), so the loop has neither a barrier nor a shuffle. Tiles are loaded one
round ahead, since few programs leave memory idle. The number of parts follows from the vocabulary alone, so a
token's result does not depend on its batch. Contraction is off: equal models shall deviate by exactly 0.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from credit.backends import limits
from credit.backends.torch import strides
from credit.backends.torch.further_kernel import (
    add_divergences,
    add_squares,
    make_flags,
    merge_further,
    read_further,
    store_further,
)
from credit.backends.torch.head_kernel import give_scale
from credit.backends.torch.load_kernel import finish_tiles, load_tiles, select_logit
from credit.backends.vocab import state, tiles

Tensor = torch.Tensor

FIELDS = 2 * state.FIELDS  # of a stored state, in the order of `state.pack`
UNFUSED: Any = {"enable_fp_fusion": False}


@triton.jit
def _inverse_root(total):
    # Approximate roots flush denormals; a part this light weighs nothing.
    return tl.where(total > 1e-30, tl.rsqrt(tl.maximum(total, 1e-30)), 0.0)


@triton.jit
def _exponents(x, peak, c):
    return (x - peak[:, None]) * c  # subtract first: c x - c peak rounds above 0


@triton.jit
def _sum_moment(u, v, t, s):
    return tl.sum(tl.fma(u * u, tl.maximum(t, -512.0), v * v * tl.maximum(s, -512.0)), 1)


@triton.jit
def _add_mass(peak, total, x0, x1, c):
    """One model's lanes after two more tiles: the new peak, its shift, total, and the tiles' own total."""
    higher = tl.maximum(peak, tl.max(tl.maximum(x0, x1), 1))
    shift = (peak - higher) * c
    scale = tl.exp2(shift)
    t0, t1 = _exponents(x0, higher, c), _exponents(x1, higher, c)
    u0, u1 = tl.exp2(t0), tl.exp2(t1)
    own = tl.sum(tl.fma(u1, u1, u0 * u0), 1)
    return higher, shift, scale, tl.fma(scale * scale, total, own), own, t0, t1, u0, u1


@triton.jit
def _add_tiles(
    m, a, e, n, b, d, f, k, r, x0, x1, y0, y1, c,
    PAIR: tl.constexpr, SQUARES: tl.constexpr, KL: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The lanes' states [LANES] after two more tiles [LANES, VEC] of each model."""
    x0, x1, y0, y1 = x0.to(tl.float32), x1.to(tl.float32), y0.to(tl.float32), y1.to(tl.float32)
    m_new, shift, alpha, a_new, a_own, t0, t1, u0, u1 = _add_mass(m, a, x0, x1, c)
    e = alpha * alpha * (e + tl.maximum(shift, -512.0) * a) + _sum_moment(u0, u1, t0, t1)
    f = add_squares(f, alpha, u0, u1, SQUARES)
    if PAIR:
        n_new, shift_n, beta, b_new, b_own, s0, s1, w0, w1 = _add_mass(n, b, y0, y1, c)
        root_a, root_b = _inverse_root(a_own), _inverse_root(b_own)
        # u / sqrt A - w / sqrt B = (u - w sqrt(A / B)) / sqrt A, exactly 0 for equal models.
        ratio = tl.where(a_own == b_own, 1.0, a_own * root_a * root_b)[:, None]
        minus = tl.broadcast_to(-ratio, u0.shape)
        g0, g1 = tl.fma(w0, minus, u0), tl.fma(w1, minus, u1)
        own = 0.5 * root_a * root_a * tl.sum(tl.fma(g0, g0, g1 * g1), 1)
        over_a, over_b = _inverse_root(a_new), _inverse_root(b_new)
        p_old, q_old = alpha * (a * _inverse_root(a)) * over_a, beta * (b * _inverse_root(b)) * over_b
        p_own, q_own = a_own * root_a * over_a, b_own * root_b * over_b
        old, new = p_old - q_old, p_own - q_own
        d = p_old * q_old * d + p_own * q_own * own + 0.5 * (old * old + new * new)
        k, r = add_divergences(
            k, r, a, b, a_new, b_new, shift, alpha, shift_n, beta, t0, t1, s0, s1, u0, u1, w0, w1, KL, REVERSE
        )  # fmt: skip
        n, b = n_new, b_new
    return m_new, a_new, e, n, b, d, f, k, r


@triton.jit
def _merge_states(
    m, a, e, n, b, d, f, k, r, c, SQUARES: tl.constexpr, KL: tl.constexpr, REVERSE: tl.constexpr
):  # fmt: skip
    """One state from those along axis 0: of the lanes of a program, or of the parts of a vocabulary."""
    peak, reference_peak = tl.max(m, 0), tl.max(n, 0)
    shift = (m - peak) * c
    alpha, beta = tl.exp2(shift), tl.exp2((n - reference_peak) * c)
    total, reference_total = tl.sum(alpha * alpha * a, 0), tl.sum(beta * beta * b, 0)
    moment = tl.sum(alpha * alpha * (e + tl.maximum(shift, -512.0) * a), 0)
    p = alpha * tl.sqrt(a) * _inverse_root(total)
    q = beta * tl.sqrt(b) * _inverse_root(reference_total)
    deviation = tl.sum(0.5 * (p - q) * (p - q) + p * q * d, 0)
    f, k, r = merge_further(
        f, k, r, m, a, n, b, peak, total, reference_peak, reference_total, c, SQUARES, KL, REVERSE
    )
    return peak, total, moment, reference_peak, reference_total, deviation, f, k, r


@triton.jit
def _store_statistics(
    out_ptr, row, rows, half, m, a, e, selected, n, b, d, ref_selected, f, k, r,
    PAIR: tl.constexpr, SQUARES: tl.constexpr, KL: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """log p, log q, H, d and what is asked for; of a single model log p, H, peak, ln A and sum p^2."""
    log_a = tl.log(a)
    log_p = 2.0 * half * (selected - m) - log_a
    entropy = log_a - 1.3862943611198906 * (e / a)
    log_p, entropy = tl.where(log_p > 0.0, 0.0, log_p), tl.where(entropy < 0.0, 0.0, entropy)
    tl.store(out_ptr + row, log_p)
    if PAIR:
        log_q = 2.0 * half * (ref_selected - n) - tl.log(b)
        tl.store(out_ptr + rows + row, tl.where(log_q > 0.0, 0.0, log_q))
        tl.store(out_ptr + 2 * rows + row, entropy)
        good = (a > 0.0) & (b > 0.0)
        tl.store(out_ptr + 3 * rows + row, tl.where(good, tl.minimum(d, 1.0), float("nan")))
    else:
        tl.store(out_ptr + rows + row, entropy)
        tl.store(out_ptr + 2 * rows + row, m)
        tl.store(out_ptr + 3 * rows + row, log_a)
    f, k, r = read_further(f, k, r, a, b)
    store_further(out_ptr + 4 * rows + row, rows, f, k, r, SQUARES, KL, REVERSE)


@triton.jit
def _store_state(p, m, a, selected, e, n, b, reference_selected, d):
    """The fields in the order of `state.pack`."""
    tl.store(p, m)
    tl.store(p + 1, a)
    tl.store(p + 2, selected)
    tl.store(p + 3, e)
    tl.store(p + 4, n)
    tl.store(p + 5, b)
    tl.store(p + 6, reference_selected)
    tl.store(p + 7, d)


@triton.jit
def fold_kernel(
    x_ptr, y_ptr, ids_ptr, half_ptr, out_ptr, rows, inner, start, size,
    x_outer, x_inner, x_column, y_outer, y_inner, y_column, x_bias_ptr, y_bias_ptr, scale, soft_cap,
    PARTS: tl.constexpr, LANES: tl.constexpr, VEC: tl.constexpr,
    PAIR: tl.constexpr, DENSE: tl.constexpr, WIDE: tl.constexpr, FINISH: tl.constexpr, UNREAD: tl.constexpr,
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
    length = tl.cdiv(tl.cdiv(size, step), PARTS) * step
    low = part * length
    high = tl.minimum(low + length, size)
    high = tl.where(token == UNREAD, low, high)
    full = low + tl.maximum(high - low, 0) // step * step
    # What is left over after whole steps comes first, its loads together with those of the first step.
    x0, x1, y0, y1 = load_tiles(x_ptr, y_ptr, full + first, x_column, y_column, high, tile, PAIR, DENSE, True)
    u0, u1, v0, v1 = load_tiles(x_ptr, y_ptr, low + first, x_column, y_column, full, tile, PAIR, DENSE, True)
    x0, x1, y0, y1 = finish_tiles(
        x0, x1, y0, y1, x_bias_ptr, y_bias_ptr, scale, soft_cap, full + first, high, tile, PAIR, True
    )
    m, a, e, n, b, d, f, k, r = _add_tiles(
        m, a, e, n, b, d, f, k, r, x0, x1, y0, y1, c, PAIR, SQUARES, KL, REVERSE
    )
    for s in range(low, full, step):
        x0, x1, y0, y1 = u0, u1, v0, v1
        # The last round reads its own tiles again, which costs less than a mask in every round.
        ahead = first + tl.multiple_of(tl.minimum(s + step, full - step), step)
        u0, u1, v0, v1 = load_tiles(x_ptr, y_ptr, ahead, x_column, y_column, high, tile, PAIR, DENSE, False)
        x0, x1, y0, y1 = finish_tiles(
            x0, x1, y0, y1, x_bias_ptr, y_bias_ptr, scale, soft_cap, s + first, high, tile, PAIR, False
        )
        m, a, e, n, b, d, f, k, r = _add_tiles(
            m, a, e, n, b, d, f, k, r, x0, x1, y0, y1, c, PAIR, SQUARES, KL, REVERSE
        )
    m, a, e, n, b, d, f, k, r = _merge_states(m, a, e, n, b, d, f, k, r, c, SQUARES, KL, REVERSE)
    place = token - start
    here = (place >= low) & (place < high)
    selected = select_logit(x_ptr, place, x_column, here, x_bias_ptr, scale, soft_cap)
    reference_selected = select_logit(y_ptr, place, y_column, here, y_bias_ptr, scale, soft_cap)
    if FINISH:
        _store_statistics(
            out_ptr, row, rows, half, m, a, e, selected, n, b, d, reference_selected, f, k, r,
            PAIR, SQUARES, KL, REVERSE,
        )  # fmt: skip
    else:
        p = out_ptr + (row * PARTS + part) * (8 + SQUARES + KL + REVERSE)
        _store_state(p, m, a, selected, e, n, b, reference_selected, d)
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
    m, a, e, n, b, d, f, k, r = _merge_states(m, a, e, n, b, d, f, k, r, c, SQUARES, KL, REVERSE)
    _store_statistics(
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
    divergences = "kl" in also or "reverse_kl" in also
    registers = limits.TRITON_DIVERGENCE_REGISTERS if divergences else limits.TRITON_REGISTERS
    inner, (x_rows, y_rows) = strides.row_strides(x, y)
    if rows:
        fold_kernel[(rows, parts)](
            x, y, flatten(ids), flatten(half), out, rows, inner, start, x.shape[-1],
            *x_rows, x.stride(-1), *y_rows, y.stride(-1),
            None if x_bias is None else x_bias.contiguous(), None if y_bias is None else y_bias.contiguous(),
            give_scale(scale), soft_cap, PARTS=parts, LANES=limits.TRITON_LANES,
            VEC=max(1, 16 // max(x.element_size(), y.element_size())), PAIR=pair, FINISH=done,
            DENSE=x.stride(-1) == y.stride(-1) == 1, WIDE=strides.is_aligned(x, y, *x_rows, *y_rows),
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
