# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: the fields of `vocab/by_name.py` in registers, beside those of `kernels.py`; f, k and r are theirs.

A lane takes its entries one by one, as parts of their own: none has a divergence inside, and the exponents,
which do not underflow, give the ratios of their probabilities. SQUARES, KL and REVERSE are 1 where the field
is asked for, and 0 where nothing of it is computed.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

FLAGS = {"sum_squares": "SQUARES", "kl": "KL", "reverse_kl": "REVERSE"}


def make_flags(also: Sequence[str], *, pair: bool = True) -> dict[str, int]:
    """The constants of a kernel for the names of fields that are asked for, of two models or one."""
    if not pair and set(also) - {"sum_squares"}:
        raise ValueError(f"{', '.join(also)} of one model; expected nothing but sum_squares")
    return {flag: int(name in also) for name, flag in FLAGS.items()}


@triton.jit
def add_squares(f, alpha, u0, u1, SQUARES: tl.constexpr):
    """The lanes' sum of squares after two more tiles."""
    if SQUARES:
        alpha, v0, v1 = alpha * alpha, u0 * u0, u1 * u1
        f = alpha * alpha * f + tl.sum(tl.fma(v1, v1, v0 * v0), 1)
    return f


@triton.jit
def add_divergences(
    k, r, a, b, a_new, b_new, shift, alpha, reference_shift, beta, t0, t1, s0, s1, u0, u1, w0, w1,
    KL: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The lanes' fields after two more tiles: from totals before and after, exponents and exponentials."""
    if KL or REVERSE:
        alpha, beta, v0, v1 = alpha * alpha, beta * beta, u0 * u0, u1 * u1
        over_a, over_b = _inverse(a_new), _inverse(b_new)
        p, q = alpha * a * over_a, beta * b * over_b
        whole = (a > 0.0) & (b > 0.0)  # else the divergence inside is none
        log_ratio = _log2_ratio(b_new, a_new)
        t = _to_nats(reference_shift, shift, log_ratio - _log2_ratio(b, a))
        t0, t1 = _to_nats(s0, t0, log_ratio[:, None]), _to_nats(s1, t1, log_ratio[:, None])
        p0, p1 = v0 * over_a[:, None], v1 * over_a[:, None]
        q0, q1 = w0 * w0 * over_b[:, None], w1 * w1 * over_b[:, None]
        if KL:
            own = tl.sum(_divergence(p0, q0, t0) + _divergence(p1, q1, t1), 1)
            k = own + _divergence(p, q, t) + tl.where(whole & (p > 0.0), p * k, 0.0)
        if REVERSE:
            own = tl.sum(_divergence(q0, p0, -t0) + _divergence(q1, p1, -t1), 1)
            r = own + _divergence(q, p, -t) + tl.where(whole & (q > 0.0), q * r, 0.0)
    return k, r


@triton.jit
def merge_further(
    f, k, r, m, a, n, b, peak, total, reference_peak, reference_total, c,
    SQUARES: tl.constexpr, KL: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The fields of the states along axis 0 together."""
    shift, reference_shift = (m - peak) * c, (n - reference_peak) * c
    alpha, beta = tl.exp2(2.0 * shift), tl.exp2(2.0 * reference_shift)
    f = tl.sum(alpha * alpha * f, 0) if SQUARES else total
    if KL or REVERSE:
        p, q = alpha * a * _inverse(total), beta * b * _inverse(reference_total)
        whole = (a > 0.0) & (b > 0.0)
        t = _to_nats(reference_shift, shift, _log2_ratio(reference_total, total) - _log2_ratio(b, a))
    k = tl.sum(_divergence(p, q, t) + tl.where(whole & (p > 0.0), p * k, 0.0), 0) if KL else total
    r = tl.sum(_divergence(q, p, -t) + tl.where(whole & (q > 0.0), q * r, 0.0), 0) if REVERSE else total
    return f, k, r


@triton.jit
def store_further(
    p, step, f, k, r, SQUARES: tl.constexpr, KL: tl.constexpr, REVERSE: tl.constexpr
):  # fmt: skip
    """The fields that are asked for in the order of `by_name.pack`, from `p` on, so many numbers apart."""
    if SQUARES:
        tl.store(p, f)
    if KL:
        tl.store(p + SQUARES * step, k)
    if REVERSE:
        tl.store(p + (SQUARES + KL) * step, r)


@triton.jit
def read_further(f, k, r, a, b):
    """sum p^2, KL(p || q) and KL(q || p)."""
    squares = f / (a * a)
    good = (a > 0.0) & (b > 0.0)
    return (
        tl.where(squares > 1.0, 1.0, squares),
        tl.where(good, k, float("nan")),
        tl.where(good, r, float("nan")),
    )


@triton.jit
def _divergence(p, q, t):
    near = tl.abs(t) < 0.25
    x = tl.where(near, t, 0.0)
    series = tl.fma(x, 1.984126984e-4, 1.388888889e-3)
    series = tl.fma(x, series, 8.333333333e-3)
    series = tl.fma(x, series, 4.166666667e-2)
    series = tl.fma(x, series, 0.1666666667)
    series = tl.fma(x, series, 0.5)
    value = tl.where(near, p * (x * x * series), tl.fma(-p, t, q - p))
    return tl.where(p > 0.0, value, q)


@triton.jit
def _to_nats(s, t, log_ratio):
    """ln(q / p) of exponents in base 2, which count half, and log2(B / A)."""
    return 0.6931471805599453 * (2.0 * (s - t) - log_ratio)


@triton.jit
def _log2_ratio(b, a):
    return tl.where(a == b, 0.0, tl.log2(b / a))


@triton.jit
def _inverse(total):
    return tl.where(total > 0.0, 1.0 / total, 0.0)
