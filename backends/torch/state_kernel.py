# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: the state of `vocab/state.py` per lane, how tiles are added to it, and how states join.

`vocab/state.py` is the reference for every formula here. Exponents are in base 2 (log2 e is 1.4427), so the
moment E is in units of ln 2, and 2 ln 2 = 1.3863 turns it into nats. Without contraction and with the same
operations for both models, equal models deviate by exactly 0.
"""

import triton
import triton.language as tl

from credit.backends.torch.further_kernel import (
    add_divergences,
    add_squares,
    merge_further,
    read_further,
    store_further,
)


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
def add_tiles(
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
def merge_states(
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
def store_statistics(
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
def store_state(p, m, a, selected, e, n, b, reference_selected, d):
    """The fields in the order of `state.pack`."""
    tl.store(p, m)
    tl.store(p + 1, a)
    tl.store(p + 2, selected)
    tl.store(p + 3, e)
    tl.store(p + 4, n)
    tl.store(p + 5, b)
    tl.store(p + 6, reference_selected)
    tl.store(p + 7, d)
