"""The mergeable state of the token statistics: what a part of the vocabulary contributes, and how parts join.

For policy logits x, reference logits y and temperature T, over any part of the vocabulary,

    u_v = exp((x_v - max x) / 2T)      A = sum u^2      p_v = u_v^2 / A   (within the part)
    w_v = exp((y_v - max y) / 2T)      B = sum w^2      q_v = w_v^2 / B
    E = sum u^2 ln u                   d = 1/2 sum (u / sqrt A - w / sqrt B)^2

d is the squared Hellinger distance of the two distributions inside the part. Parts of mass P_k and
Q_k join by its chain rule, in which every term is non-negative and nothing cancels:

    d = sum_k 1/2 (sqrt P_k - sqrt Q_k)^2 + sqrt(P_k Q_k) d_k

`gradients.py` has the gradients in the logits, `by_name.py` the statistics asked for by name. All formulas of
the backends are in these three; `numpy/inplace.py`, `numpy/compiled_kernels.py` and `torch/state_kernel.py`
repeat them in forms of their own, and tests compare. Every field is [..., 1], `half` is 1 / 2T [..., 1].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from credit.backends.arrays import namespace
from credit.backends.vocab import by_name

Array = Any

# exp(2 * FLOOR) is 0 in float32 and float64, so clamping exponents there changes no product but
# that of 0 and -inf, which would be NaN.
FLOOR = -512.0


class Mass(NamedTuple):
    """One distribution over a part of the vocabulary."""

    peak: Array  # raw maximum of the logits, at least the type's lowest finite number
    total: Array  # A
    selected: Array  # raw logit of the token if it lies in this part, else 0


class Single(NamedTuple):
    """The state of one model: enough for log-probability and entropy."""

    policy: Mass
    moment: Array  # E
    further: by_name.Further = by_name.Further()


class Pair(NamedTuple):
    """The state of two models: adds their squared Hellinger distance inside the part."""

    policy: Mass
    moment: Array
    reference: Mass
    deviation: Array  # d
    further: by_name.Further = by_name.Further()


State = Single | Pair
FIELDS = 4  # of one model: peak, total, selected, and the moment (policy) or the deviation (reference)


class _Rescaled(NamedTuple):
    """A part's mass under the peak that it gets in a merge."""

    shift: Array  # (peak of the part - peak) / 2T
    scale: Array  # exp(2 shift)
    total: Array  # scale A


def single_state(x: Array, token_ids: Array, half: Array, also: Sequence[str] = ()) -> Single:
    """The state of logits x [..., V']; token_ids [..., 1] count from the part's first entry."""
    mass, exponent, u = _sum_exponentials(x, token_ids, half)
    return Single(mass, _sum_moment(exponent, u), by_name.sum_part(also, (exponent,), (u,), (mass.total,)))


def pair_state(x: Array, y: Array, token_ids: Array | None, half: Array, also: Sequence[str] = ()) -> Pair:
    """The state of policy logits x and reference logits y, both [..., V']; without ids, `selected` is 0."""
    xp = namespace(x)
    policy, exponent, u = _sum_exponentials(x, token_ids, half)
    reference, other, w = _sum_exponentials(y, token_ids, half)
    # One factor, exactly 1 for equal inputs: then even a fused multiply-add gives exactly 0.
    w = xp.sqrt(_safe_ratio(policy.total, reference.total)) * w
    difference = u - w
    squares = xp.sum(difference * difference, axis=-1, keepdims=True)
    further = by_name.sum_part(also, (exponent, other), (u, w), (policy.total, reference.total))
    deviation = 0.5 * _safe_ratio(squares, policy.total)
    return Pair(policy, _sum_moment(exponent, u), reference, deviation, further)


def sum_states(logits: Sequence[Array], token_ids: Array, half: Array, also: Sequence[str] = ()) -> Any:
    """`single_state` of one model's logits, or `pair_state` of two."""
    if len(logits) == 1:
        return single_state(logits[0], token_ids, half, also)
    return pair_state(logits[0], logits[1], token_ids, half, also)


def merge_single(a: Single, b: Single, half: Array) -> Single:
    """The state of two disjoint parts together."""
    policy, shares = _merge_mass(a.policy, b.policy, half)
    further = by_name.merge((a, b), (shares,), (policy.total,))
    return Single(policy, _merge_moment((a, b), shares), further)


def merge_pair(a: Pair, b: Pair, half: Array) -> Pair:
    """The state of two disjoint parts together."""
    xp = namespace(a.deviation)
    policy, shares = _merge_mass(a.policy, b.policy, half)
    reference, reference_shares = _merge_mass(a.reference, b.reference, half)
    deviation = 0.0
    for part, share, reference_share in zip((a, b), shares, reference_shares, strict=True):
        root_p = xp.sqrt(_safe_ratio(share.total, policy.total))
        root_q = xp.sqrt(_safe_ratio(reference_share.total, reference.total))
        between = root_p - root_q
        deviation = deviation + 0.5 * between * between + root_p * root_q * part.deviation
    further = by_name.merge((a, b), (shares, reference_shares), (policy.total, reference.total))
    return Pair(policy, _merge_moment((a, b), shares), reference, deviation, further)


def merge(a: Any, b: Any, half: Array) -> Any:
    """`merge_pair` or `merge_single`, as the states are."""
    return merge_pair(a, b, half) if isinstance(a, Pair) else merge_single(a, b, half)


def pack(state: State) -> tuple[Array, ...]:
    """The state's fields, FIELDS of each model and those of `also`: the order in which states are stored."""
    if isinstance(state, Single):
        return *state.policy, state.moment, *by_name.pack(state.further)
    return *state.policy, state.moment, *state.reference, state.deviation, *by_name.pack(state.further)


def unpack(fields: Sequence[Array], also: Sequence[str] = ()) -> Any:
    """The Single or Pair of which these are the packed fields."""
    policy = Mass(*fields[:3])
    if len(fields) < 2 * FIELDS:
        return Single(policy, fields[3], by_name.unpack(fields[4:], also))
    return Pair(policy, fields[3], Mass(*fields[4:7]), fields[7], by_name.unpack(fields[8:], also))


def log_prob(mass: Mass, half: Array) -> Array:
    """log p(token) [...], at most 0; NaN where the row holds NaN, +inf, or nothing but -inf."""
    xp = namespace(mass.total)
    value = 2.0 * half * (mass.selected - mass.peak) - xp.log(mass.total)
    return xp.where(value > 0.0, 0.0, value)[..., 0]


def entropy(policy: Mass, moment: Array) -> Array:
    """H(p) [...] in nats, at least 0: ln A - 2 E / A."""
    xp = namespace(moment)
    value = xp.log(policy.total) - 2.0 * moment / policy.total
    return xp.where(value < 0.0, 0.0, value)[..., 0]


def deviation(state: Pair) -> Array:
    """d [...] in [0, 1]; NaN where either side is bad.

    What equal logits leave when their two sums are rounded differently (compilers and reductions may)
    is a square of that rounding, far below any d that is known to a digit: it is read as 0.
    """
    xp = namespace(state.deviation)
    rounding = float(xp.finfo(state.deviation.dtype).eps)
    value = xp.where(state.deviation < 64.0 * rounding * rounding, 0.0, state.deviation)
    value = xp.where(value > 1.0, 1.0, value)
    return xp.where((state.policy.total > 0.0) & (state.reference.total > 0.0), value, float("nan"))[..., 0]


def select_logits(x: Array, token_ids: Array) -> Array:
    """The logits [..., 1] of ids [..., 1] that lie in this part, else 0."""
    xp = namespace(x)
    inside = (token_ids >= 0) & (token_ids < x.shape[-1])
    taken = xp.take_along_axis(x, xp.where(inside, token_ids, xp.zeros_like(token_ids)), axis=-1)
    return xp.where(inside, taken, 0.0)


def _sum_exponentials(x: Array, token_ids: Array | None, half: Array) -> tuple[Mass, Array, Array]:
    xp = namespace(x)
    lowest = xp.finfo(x.dtype).min
    peak = xp.max(x, axis=-1, keepdims=True)
    peak = xp.where(peak < lowest, lowest, peak)  # a part of -inf only; NaN stays
    exponent = (x - peak) * half  # subtract first: x half - peak half rounds above 0
    u = xp.exp(exponent)
    selected = xp.zeros_like(peak) if token_ids is None else select_logits(x, token_ids)
    return Mass(peak, xp.sum(u * u, axis=-1, keepdims=True), selected), exponent, u


def _sum_moment(exponent: Array, u: Array) -> Array:
    xp = namespace(u)
    return xp.sum(u * u * _clamp_exponent(exponent), axis=-1, keepdims=True)


def _merge_mass(a: Mass, b: Mass, half: Array) -> tuple[Mass, tuple[_Rescaled, _Rescaled]]:
    xp = namespace(a.peak)
    peak = xp.maximum(a.peak, b.peak)
    one, other = (_rescale(part, peak, half) for part in (a, b))
    return Mass(peak, one.total + other.total, a.selected + b.selected), (one, other)


def _rescale(part: Mass, peak: Array, half: Array) -> _Rescaled:
    xp = namespace(peak)
    shift = (part.peak - peak) * half
    scale = xp.exp(2.0 * shift)
    return _Rescaled(shift, scale, scale * part.total)


def _merge_moment(parts: tuple[Any, Any], shares: tuple[_Rescaled, _Rescaled]) -> Array:
    return sum(
        share.scale * part.moment + _clamp_exponent(share.shift) * share.total
        for part, share in zip(parts, shares, strict=True)
    )


def _clamp_exponent(exponent: Array) -> Array:
    xp = namespace(exponent)
    return xp.where(exponent < FLOOR, FLOOR, exponent)


def _safe_ratio(a: Array, b: Array) -> Array:
    xp = namespace(b)
    return xp.where(b > 0.0, a / b, 0.0)
