# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Triton: the logits soft_cap tanh(z / soft_cap) with z = scale (product + bias) of a linear head's products.

`vocab/tiles.py` is the reference. What is absent is None, and costs no instruction.
"""

from typing import Any

import triton
import triton.language as tl


def give_scale(scale: float) -> Any:
    """The scale as a kernel takes it."""
    return None if scale == 1.0 else scale


@triton.jit
def finish_logits(product, bias_ptr, offsets, there, scale, soft_cap, MASKED: tl.constexpr):
    """Logits of products whose places in the vocabulary are `offsets`; -inf where not `there` if MASKED."""
    logits = product
    if bias_ptr is not None or scale is not None or soft_cap is not None:
        logits, _ = _cap(_scale(product, bias_ptr, offsets, there, scale, MASKED), soft_cap)
        if MASKED:
            logits = tl.where(there, logits, -float("inf"))
    return logits


@triton.jit
def finish_logits_and_slopes(product, bias_ptr, offsets, there, scale, soft_cap):
    """Logits and their derivatives in the products, where `there`."""
    logits, slope = _cap(_scale(product, bias_ptr, offsets, there, scale, True), soft_cap)
    if scale is not None:
        slope = slope * scale
    return logits, slope


@triton.jit
def _scale(product, bias_ptr, offsets, there, scale, MASKED: tl.constexpr):
    z = product.to(tl.float32)
    if bias_ptr is not None:
        # All rows read the same bias, so it comes from the cache.
        if MASKED:
            z = z + tl.load(bias_ptr + offsets, mask=there, other=0.0).to(tl.float32)
        else:
            z = z + tl.load(bias_ptr + offsets).to(tl.float32)
    if scale is not None:
        z = z * scale
    return z


@triton.jit
def _cap(z, soft_cap):
    """Capped logits and their derivatives in z."""
    slope = 1.0
    if soft_cap is not None:
        t = z * (1.0 / soft_cap)
        e = tl.exp2(tl.abs(t) * -2.8853900817779268)
        # 1 / (1 + e) in one instruction of the hardware; its error counts little in 1 - 2 e / (1 + e).
        inverse = tl.rsqrt((1.0 + e) * (1.0 + e))
        far = 1.0 - 2.0 * e * inverse
        # That has few digits where t is small: there the polynomial of the Cephes library.
        square = t * t
        near = tl.fma(square, -5.70498872745e-3, 2.06390887954e-2)
        near = tl.fma(square, near, -5.37397155531e-2)
        near = tl.fma(square, near, 0.133314422036)
        near = tl.fma(square, near, -0.333332819422)
        near = tl.fma(t * square, near, t)
        z = soft_cap * tl.where(tl.abs(t) < 0.625, near, tl.where(t < 0.0, -far, far))
        slope = 4.0 * e * inverse * inverse
    return z, slope
