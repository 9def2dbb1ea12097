# mypy: disable-error-code="untyped-decorator"
"""The fold and the gradient of `vocab/state.py` in one pass over rows, compiled by numba.

A row is read in tiles that stay in the first cache; the chain rule joins a tile's state, in float32, to that
of the tiles before it, in float64. Logits are float32 words, or bfloat16 as the upper halves of such words.

LLVM makes vectors of the loops if it may reorder their sums. Only the loops allow it: the exponential and the
merge are rounded as they stand. NaN and infinities mean what they mean elsewhere, so no flag excludes them.
"""

from math import exp, sqrt
from typing import Any

import numpy as np
from numba import float32, int64, njit, types, uint16

from credit.backends.vocab import tiles

Array = Any
Number = Any  # of numpy's types, which numba keeps apart

LOWEST = np.finfo(np.float32).min
UNREAD = tiles.UNREAD
MAGNITUDE, INFINITE, QUIET = np.int32(0x7FFFFFFF), np.int32(0x7F800000), np.int32(0x00400000)

# exp(t) = 2^n exp(r) with n the nearest integer to t / ln 2, which the shift leaves in the last bits.
PER_LN2, SHIFT = np.float32(1.4426950408889634), np.float32(1.5 * 2**23)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
SMALLEST = np.float32(-87.33654)  # ln 2^-126: what is below is 0
C2, C3, C4 = np.float32(0.5), np.float32(1.6666665459e-1), np.float32(4.1665795894e-2)
C5, C6, C7 = np.float32(8.3334519073e-3), np.float32(1.3981999507e-3), np.float32(1.9875691500e-4)
ZERO, ONE = np.float32(0.0), np.float32(1.0)
ONE_BITS = np.int32(0x3F800000)

exact = njit(fastmath={"contract"}, error_model="numpy", nogil=True)
vectorized = njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy", nogil=True)


@exact
def exponential(t: Number) -> Number:
    """exp(t) for t <= 0, within a few units of the last place; NaN stays."""
    shifted = t * PER_LN2 + SHIFT
    n = shifted - SHIFT
    r = (t - n * LN2_HIGH) - n * LN2_LOW
    value = (((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2) * (r * r) + r + ONE
    power = np.int32(np.int32(np.float32(shifted).view(np.int32) << 23) + ONE_BITS)
    return ZERO if t < SMALLEST else value * np.int32(power).view(np.float32)


@exact
def order(bits: Number) -> Number:
    """An integer for a float32's bits, and back, that is ordered as the numbers are."""
    return np.int32(bits ^ np.int32((bits >> 31) & MAGNITUDE))


@vectorized
def load(words: Array, halves: Array, start: int, step: int, tile: Array) -> Number:
    """Copies logits from `start` on to the tile; their maximum, at least the lowest finite number."""
    width = len(tile)
    bits, highest = tile.view(np.int32), np.int32(-(2**31))
    if len(halves) and step == 1:
        part = halves[start : start + width]
        for i in range(width):
            bits[i] = np.int32(np.int32(part[i]) << 16)
    elif len(halves):
        for i in range(width):
            bits[i] = np.int32(np.int32(halves[start + i * step]) << 16)
    elif step == 1:
        source = words[start : start + width].view(np.int32)
        for i in range(width):
            bits[i] = source[i]
    else:
        for i in range(width):
            tile[i] = words[start + i * step]
    for i in range(width):
        highest = max(highest, order(bits[i]))
    peak = np.int32(order(highest)).view(np.float32)
    return LOWEST if peak < LOWEST else peak


@vectorized
def sum_exponentials(tile: Array, peak: Number, half: Number) -> tuple[Number, Number]:
    """A and E of the tile, which becomes u."""
    total, moment = ZERO, ZERO
    for i in range(len(tile)):
        t = (tile[i] - peak) * half
        u = exponential(t)
        tile[i] = u
        square = u * u
        total += square
        moment += square * (SMALLEST if t < SMALLEST else t)
    return total, moment


@vectorized
def sum_differences(u: Array, w: Array, factor: Number) -> Number:
    """sum (u - factor w)^2, exactly 0 for equal tiles and the factor 1."""
    total = ZERO
    for i in range(len(u)):
        difference = u[i] - factor * w[i]
        total += difference * difference
    return total


@exact
def join(
    peak: Number,
    total: Number,
    moment: Number,
    tile_peak: Number,
    tile_total: Number,
    tile_moment: Number,
    half: Number,
) -> tuple[Number, ...]:
    """Peak, A and E of a row's tiles so far with one more; and what A of both are under the new peak."""
    joined = tile_peak if tile_peak > peak else peak
    shift, tile_shift = (peak - joined) * half, (tile_peak - joined) * half
    scale = exp(2.0 * shift) if shift != 0.0 else 1.0
    tile_scale = exp(2.0 * tile_shift) if tile_shift != 0.0 else 1.0
    before, added = scale * total, tile_scale * tile_total
    moments = scale * (moment + shift * total) + tile_scale * (tile_moment + tile_shift * tile_total)
    return joined, before + added, moments, before, added


@exact
def root_of_ratio(a: Number, b: Number) -> Number:
    return sqrt(a / b) if b > 0.0 else 0.0


WORDS = types.Array(float32, 1, "C", readonly=True)
HALVES = types.Array(uint16, 1, "C", readonly=True)
INTEGERS = types.Array(int64, 1, "C", readonly=True)
MATRIX = types.Array(float32, 2, "C", readonly=True)
LOGITS = (WORDS, HALVES, INTEGERS, int64)


@njit(
    types.void(*LOGITS, *LOGITS, int64, INTEGERS, WORDS, int64, int64, int64, float32[:, ::1]),
    nogil=True,
    cache=True,
    error_model="numpy",
    fastmath={"contract"},
)
def fold_rows(
    words: Array,
    halves: Array,
    offsets: Array,
    step: int,
    other_words: Array,
    other_halves: Array,
    other_offsets: Array,
    other_step: int,
    columns: int,
    ids: Array,
    half: Array,
    first: int,
    last: int,
    entries: int,
    out: Array,
) -> None:
    """Peak, A, E of one model's rows into out [3, N], or of two with the other's peak, B and d: [6, N].

    Rows whose id is UNREAD are not read.
    """
    pair = len(out) == 6
    scratch, other_scratch = np.empty(entries, np.float32), np.empty(entries, np.float32)
    for row in range(first, last):
        h, factor = half[row], np.float64(half[row])
        peak, total, moment = np.float64(LOWEST), 0.0, 0.0
        other_peak, other_total, deviation = np.float64(LOWEST), 0.0, 0.0
        for start in range(0, columns if ids[row] != UNREAD else 0, entries):
            width = min(entries, columns - start)
            u, w = scratch[:width], other_scratch[:width]
            m = load(words, halves, offsets[row] + start * step, step, u)
            a, e = sum_exponentials(u, m, h)
            peak, total, moment, before, added = join(peak, total, moment, m, a, e, factor)
            if pair:
                m = load(other_words, other_halves, other_offsets[row] + start * other_step, other_step, w)
                b, e = sum_exponentials(w, m, h)
                other_peak, other_total, _, q_before, q_added = join(
                    other_peak, other_total, 0.0, m, b, e, factor
                )
                squares = sum_differences(u, w, np.float32(root_of_ratio(a, b)))
                inside = 0.5 * squares / a if a > 0.0 else 0.0
                p, p_added = root_of_ratio(before, total), root_of_ratio(added, total)
                q, q_added = root_of_ratio(q_before, other_total), root_of_ratio(q_added, other_total)
                between = 0.5 * ((p - q) * (p - q) + (p_added - q_added) * (p_added - q_added))
                deviation = between + p * q * deviation + p_added * q_added * inside
        out[0, row], out[1, row], out[2, row] = peak, total, moment
        if pair:
            out[3, row], out[4, row], out[5, row] = other_peak, other_total, deviation


@vectorized
def write_gradient(tile: Array, peak: Number, twice_half: Number, constant: Number, slope: Number) -> None:
    """u (constant + slope ln u) with u = exp(twice_half (x - peak)), over logits x."""
    for i in range(len(tile)):
        t = (tile[i] - peak) * twice_half
        tile[i] = exponential(t) * (constant + slope * (SMALLEST if t < SMALLEST else t))


@exact
def round_to_half(bits: Number) -> Number:
    """The nearest bfloat16 of a float32's bits, ties to even; NaN stays."""
    rounded = np.int32(bits + np.int32(0x7FFF) + np.int32((bits >> 16) & 1))
    return np.uint16((bits | QUIET if (bits & MAGNITUDE) > INFINITE else rounded) >> 16)


@njit(
    types.void(
        *LOGITS, int64, INTEGERS, WORDS, MATRIX, MATRIX, int64, int64, int64, float32[::1], uint16[::1]
    ),
    nogil=True,
    cache=True,
    error_model="numpy",
    fastmath={"contract"},
)
def grad_rows(
    words: Array,
    halves: Array,
    offsets: Array,
    step: int,
    columns: int,
    ids: Array,
    half: Array,
    residuals: Array,
    grad_output: Array,
    first: int,
    last: int,
    entries: int,
    out: Array,
    out_halves: Array,
) -> None:
    """The gradient of log p and H in the logits, into words or halves [N columns] without gaps."""
    scratch = np.empty(entries, np.float32)
    for row in range(first, last):
        peak, log_total, entropy = residuals[0, row], residuals[1, row], residuals[2, row]
        of_log_prob, of_entropy = grad_output[0, row], grad_output[1, row]
        twice_half = np.float32(2.0) * half[row]
        share = np.float32(-twice_half * exp(-log_total))
        constant = np.float32(share * (of_log_prob + of_entropy * (entropy - log_total)))
        slope = np.float32(share * of_entropy)
        for start in range(0, columns, entries):
            width = min(entries, columns - start)
            tile = scratch[:width]
            load(words, halves, offsets[row] + start * step, step, tile)
            write_gradient(tile, peak, twice_half, constant, slope)
            place = ids[row] - start
            if 0 <= place < width:
                tile[place] += twice_half * of_log_prob
            begin = row * columns + start
            if len(out_halves):
                target, bits = out_halves[begin : begin + width], tile.view(np.int32)
                for i in range(width):
                    target[i] = round_to_half(bits[i])
            else:
                for i in range(width):
                    out[begin + i] = tile[i]
