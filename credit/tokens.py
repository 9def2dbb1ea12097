"""Statistics over the tokens of one response; what lies outside the mask takes no part."""

from collections.abc import Callable
from typing import Any

from credit.backends.arrays import (
    apply_mask,
    as_type,
    group_max,
    group_sum,
    is_in_range,
    make_masker,
    namespace,
)
from credit.types import Array


def length(mask: Array, dtype: object) -> Array:
    """Number of the response's tokens [N, 1], as a float."""
    return namespace(mask).sum(as_type(mask, dtype), axis=-1, keepdims=True)


def turns(mask: Array) -> Array:
    """The turn of each token of the mask [N, T], for Rollouts.turns: unbroken runs, counted from 0 in a row.

    What stands between two turns is not the policy's: outputs of tools, other speakers. 0 outside the mask.
    """
    xp = namespace(mask)
    chosen = xp.astype(mask, xp.bool)
    before = xp.concat([xp.zeros_like(chosen[:, :1]), chosen[:, :-1]], axis=1)
    starts = xp.astype(chosen & ~before, xp.__array_namespace_info__().default_dtypes()["indexing"])
    return xp.where(chosen, xp.cumulative_sum(starts, axis=1) - 1, 0)


def redistribute(score: Array, mask: Array, tau: Any, turns: Array | None = None) -> Array:
    """w_t = T exp(s_t / tau) / sum_j exp(s_j / tau) over the mask's tokens [N, T]; the mean is 1.

    With `turns` [N, T] (integers in 0..T-1) the softmax, and T, are those of the token's own turn.
    Computed as e (T / sum e), so that equal scores give exactly 1. 0 outside the mask. A NaN score
    on a token of the mask makes its own response (or turn) NaN.
    """
    inside, total, peak = make_reducers(mask, turns)
    top = peak(score)
    return inside(_softmax_weights((inside(score, top) - top) / tau, mask, total))


def redistribute_to_fraction(
    score: Array,
    mask: Array,
    fraction: Any,
    *,
    tau_min: float,
    floor: Array | float,
    turns: Array | None = None,
) -> Array:
    """As `redistribute`, at the tau that makes the effective token fraction `fraction`, per response.

        (sum_t w_t)^2 / (T sum_t w_t^2) = fraction

    The left side falls in 1 / tau, from 1 to k / T for k tokens tied at the top; 24 bisection steps in
    ln(1 / tau) find it to 2e-6. tau is not taken below `tau_min`; a response whose scores spread by no
    more than `floor` ([N, 1] or a number) is noise and keeps weights of 1.
    """
    xp = namespace(score)
    inside, total, peak = make_reducers(mask, turns)
    top, bottom = peak(score), -peak(-score)
    spread = top - bottom
    smallest = xp.maximum(4.0 * xp.finfo(score.dtype).eps * xp.abs(top), xp.zeros_like(top) + floor)
    count = total(xp.ones_like(score))
    flat = (spread <= smallest) | (count < 2.0)
    safe = xp.where(flat, 1.0, spread)
    z = (inside(score, top) - top) / safe
    # Kantorovich: at this temperature the fraction is at least the one asked for.
    low = xp.log(2.0 * xp.acosh(1.0 / xp.sqrt(xp.zeros_like(safe) + fraction)))
    high = xp.log(xp.clip(safe / tau_min, max=1e9))
    low = xp.where(low < high, low, high)
    for _ in range(24):
        middle = 0.5 * (low + high)
        e = xp.exp(xp.exp(middle) * z)
        sums = total(e)
        loose = sums * sums > fraction * count * total(e * e)
        low, high = xp.where(loose, middle, low), xp.where(loose, high, middle)
    weights = _softmax_weights(xp.exp(0.5 * (low + high)) * z, mask, total)
    return xp.where(flat, as_type(mask, score.dtype), inside(weights))


def _softmax_weights(exponent: Array, mask: Array, total: Callable[[Array], Array]) -> Array:
    xp = namespace(exponent)
    e = xp.exp(exponent)
    sums = total(e)  # at least 1 where there is a token: the peak's own
    count = total(as_type(mask, e.dtype))
    return e * (count / xp.where(sums < 1.0, 1.0, sums))


def make_reducers(mask: Array, turns: Array | None) -> tuple[Callable[..., Array], ...]:
    """make_masker(mask), and the sum and maximum over the masked-in tokens of each response, or each turn.

    Shapes [N, T] -> [N, 1], or [N, T] by turns. The maximum of nothing is 0.
    """
    xp, inside = namespace(mask), make_masker(mask)
    reducers: tuple[Callable[[Array], Array], Callable[[Array], Array]]
    if turns is None:
        reducers = (
            lambda values: xp.sum(values, axis=-1, keepdims=True),
            lambda values: xp.max(values, axis=-1, keepdims=True),
        )
    else:
        rows, width = mask.shape
        first = xp.cumulative_sum(xp.ones_like(turns), axis=0) - 1
        ids = xp.where(mask, xp.where(is_in_range(turns, width), turns + width * first, -1), 0)
        flat = xp.reshape(ids, (-1,))

        def by_turn(reduce: Callable[[Array, Array], Array]) -> Callable[[Array], Array]:
            return lambda values: xp.reshape(reduce(xp.reshape(values, (-1,)), flat), (rows, width))

        reducers = by_turn(group_sum), by_turn(group_max)

    def total(values: Array) -> Array:
        return reducers[0](inside(values))

    def peak(values: Array) -> Array:
        top = reducers[1](inside(values, -float("inf")))
        return xp.where(top == -float("inf"), 0.0, top)

    return inside, total, peak


def whiten(values: Array, mask: Array, correction: int = 1) -> Array:
    """(x - mean) / sqrt(var + 1e-8) over all the mask's tokens [N, T], var with the given correction."""
    xp = namespace(values)
    count = xp.sum(as_type(mask, values.dtype))
    centred = values
    for _ in range(2):  # as in groups.center: equal values give exactly 0
        centred = xp.where(mask, centred - mean(centred, mask), 0.0)
    unit = xp.clip(xp.max(xp.abs(centred)), min=1.0)  # so that the squares of large values fit
    centred = centred / unit
    variance = xp.sum(centred * centred) / xp.clip(count - correction, min=1.0)
    return centred / xp.sqrt(variance + (1e-4 / unit) ** 2)


def returns_to_go(rewards: Array, mask: Array, gamma: Any) -> Array:
    """G_t = r_t + gamma G_{t'} [N, T], t' the next token of the mask; 0 outside the mask.

    gamma is a number, or one per token [N, T].

    A scan by doubling, since the array API has no recurrence: G_t = a_t G_{t+1} + b_t, with a = 1 and
    b = 0 outside the mask.
    """
    xp = namespace(rewards)
    b = xp.where(mask, rewards, 0.0)
    a = xp.where(mask, xp.zeros_like(b) + gamma, 1.0)
    shift = 1
    while shift < mask.shape[-1]:
        later_b = xp.concat([b[:, shift:], xp.zeros_like(b[:, :shift])], axis=1)
        later_a = xp.concat([a[:, shift:], xp.ones_like(a[:, :shift])], axis=1)
        a, b = a * later_a, b + a * later_b
        shift *= 2
    return xp.where(mask, b, 0.0)


def quantile(values: Array, mask: Array, q: float) -> Array:
    """The q-quantile of the values on the mask's tokens, 0-d, interpolated; 0 where there are none."""
    xp = namespace(values)
    # What is left out sorts behind everything and equals the largest, so that nothing is infinite.
    flat = xp.sort(xp.reshape(xp.where(mask, values, extreme(values, mask, largest=True)), (-1,)))
    place = xp.clip(xp.sum(as_type(mask, values.dtype)) - 1.0, min=0.0) * q
    low, high = (
        xp.take(flat, xp.reshape(xp.astype(end, xp.int32), (1,)), axis=0)[0]
        for end in (xp.floor(place), xp.ceil(place))
    )
    return low + (high - low) * (place - xp.floor(place))


def mean(values: Array, mask: Array) -> Array:
    """Mean over all the mask's tokens, 0-d; 0 where there are none."""
    xp = namespace(values)
    count = xp.sum(as_type(mask, values.dtype))
    return xp.sum(apply_mask(values, mask)) / xp.clip(count, min=1.0)


def extreme(values: Array, mask: Array, *, largest: bool) -> Array:
    """Largest or smallest value on the mask's tokens, 0-d; 0 where there are none."""
    xp = namespace(values)
    none = -float("inf") if largest else float("inf")
    peak = (xp.max if largest else xp.min)(apply_mask(values, mask, none))
    return xp.where(peak == none, 0.0, peak)
