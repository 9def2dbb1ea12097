"""The statistics that are asked for by name, beside the four: what a part contributes, and how parts join.

With p, q, A, B and u of `state.py`, over any part of the vocabulary,

    sum_squares    F = sum u^4                              sum p^2 = F / A^2
    kl             K = sum [p ln(p / q) - p + q]            KL(p || q), inside the part
    reverse_kl     the same with p and q exchanged          KL(q || p), inside the part
    entropy        needs nothing: H(p) is one of the four

Every term of K is non-negative: it is p phi(t) with t = ln(q / p) and phi(t) = e^t - 1 - t, and q where p
is 0. Where t is small, phi is summed as a series, so nothing cancels. What rounding leaves, to first order:

    relative errors a, b of A, B     K a + (a - b)^2 / 2, since -p + q makes up for the rest
    an error e of every t            sum p |t| e <= e sqrt(2 K) where the models nearly agree, and e at most

e is a few roundings of the exponents: 1e-6 in float32 for the tokens with mass, and independent from token to
token, which leaves far less than the bound. Parts of mass P_k and Q_k join by the chain rule, whose terms are
non-negative too, and like those of tokens:

    K = sum_k [P_k ln(P_k / Q_k) - P_k + Q_k] + P_k K_k

K is infinite where p has mass and q has none: a probability that underflows is no mass, but a logit that is
finite has a logarithm, which counts however far below the others it lies.
"""

from collections.abc import Sequence
from math import factorial
from typing import Any, Final, NamedTuple

from credit.backends.arrays import namespace

Array = Any
NAMES: Final = ("sum_squares", "kl", "reverse_kl", "entropy")
DIVERGENCES: Final = ("kl", "reverse_kl")
"""The names that compare two models."""

SMALL = 0.25
"""|t| below which phi is a series; at it, e^t - 1 - t loses a factor of some 30 to cancellation."""
TERMS = {4: 6, 8: 12}
"""Terms of the series by the bytes of a number: what is left out is below its rounding at t = SMALL."""


class Further(NamedTuple):
    """The fields [..., 1] that are asked for; the others are None."""

    sum_squares: Array | None = None  # F
    kl: Array | None = None  # K
    reverse_kl: Array | None = None


def has_divergences(also: Sequence[str]) -> bool:
    """Whether one of the names compares two models."""
    return any(name in DIVERGENCES for name in also)


def stored(also: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that are fields of a state, in the order in which they are stored."""
    return tuple(name for name in Further._fields if name in also)


def pack(further: Further) -> tuple[Array, ...]:
    """The fields that are there, in their order."""
    return tuple(field for field in further if field is not None)


def unpack(fields: Sequence[Array], also: Sequence[str]) -> Further:
    """The fields that `pack` gave for these names."""
    return Further(**dict(zip(stored(also), fields, strict=True)))


def sum_part(
    also: Sequence[str],
    exponents: Sequence[Array],
    roots: Sequence[Array],
    totals: Sequence[Array],
) -> Further:
    """A part's fields from ln u and ln w, from u and sqrt(A / B) w, and from A and B, or the first of each.

    Of one model alone there is only its sum of squares.
    """
    if not stored(also):
        return Further()
    xp = namespace(roots[0])
    p, *others = (root * root for root in roots)  # times A
    fields: dict[str, Array] = {}
    if "sum_squares" in also:
        fields["sum_squares"] = xp.sum(p * p, axis=-1, keepdims=True)
    if has_divergences(also):
        (q,) = others
        t = 2.0 * (exponents[1] - exponents[0]) + xp.log(totals[0] / totals[1])
        for name, terms in _choose_sides(also, p, q, t).items():
            fields[name] = xp.sum(divergence(*terms), axis=-1, keepdims=True) / totals[0]
    return Further(**fields)


def merge(parts: Sequence[Any], shares: Sequence[Any], totals: Sequence[Array]) -> Further:
    """The fields of parts together, given their states, each model's rescaled masses, and A and B of all."""
    also = [name for name, field in parts[0].further._asdict().items() if field is not None]
    result: dict[str, Any] = {}
    if "sum_squares" in also:
        fields = (part.further.sum_squares for part in parts)
        result["sum_squares"] = sum(
            share.scale * share.scale * f for share, f in zip(shares[0], fields, strict=True)
        )
    if has_divergences(also):
        for part, policy, reference in zip(parts, *shares, strict=True):
            for name, share in _share_of_divergences(also, part, policy, reference, totals).items():
                result[name] = result.get(name, 0.0) + share
    return Further(**result)


def _share_of_divergences(
    also: Sequence[str], part: Any, policy: Any, reference: Any, totals: Sequence[Array]
) -> dict[str, Array]:
    """What a part, given its state and rescaled masses, adds to the divergences of the whole."""
    xp = namespace(totals[0])
    a, b = part.policy.total, part.reference.total
    p, q = policy.total / totals[0], reference.total / totals[1]
    t = 2.0 * (reference.shift - policy.shift) + xp.log((b / a) * (totals[0] / totals[1]))
    whole = (a > 0.0) & (b > 0.0)  # else the divergence inside the part is none
    return {
        name: divergence(mass, other, ratio)
        + xp.where(whole & (mass > 0.0), mass * getattr(part.further, name), 0.0)
        for name, (mass, other, ratio) in _choose_sides(also, p, q, t).items()
    }


def divergence(p: Array, q: Array, t: Array) -> Array:
    """p ln(p / q) - p + q with t = ln(q / p), at least 0; p and q may share a factor."""
    xp = namespace(p)
    near = xp.abs(t) < SMALL
    small = xp.where(near, t, 0.0)
    value = xp.where(near, p * (small * small * _sum_series(small)), q - p - p * t)
    return xp.where(p > 0.0, value, q)  # 0 ln 0 is 0


def read(further: Further, totals: Sequence[Array]) -> list[Array]:
    """The fields that are there as statistics [...]; NaN where a model that they need is bad."""
    a = totals[0]
    xp = namespace(a)
    results: list[Array] = []
    if further.sum_squares is not None:
        value = further.sum_squares / (a * a)
        results.append(xp.where(value > 1.0, 1.0, value)[..., 0])
    # Of equal logits, squares of the rounding of their sums may be left, as in `state.deviation`.
    rounding = 256.0 * float(xp.finfo(a.dtype).eps) ** 2
    for field in (further.kl, further.reverse_kl):
        if field is not None:
            value = xp.where(field < rounding, 0.0, field)
            results.append(xp.where((a > 0.0) & (totals[1] > 0.0), value, float("nan"))[..., 0])
    return results


def complete(also: Sequence[str], statistics: Sequence[Array]) -> tuple[Array, ...]:
    """The four statistics and those of `also`, in its order, from the four and those that are stored."""
    log_p, log_q, entropy, deviation, *further = statistics
    found = dict(zip(stored(also), further, strict=True)) | {"entropy": entropy}
    return log_p, log_q, entropy, deviation, *(found[name] for name in also)


def _choose_sides(also: Sequence[str], p: Array, q: Array, t: Array) -> dict[str, tuple[Array, Array, Array]]:
    """The arguments of `divergence` for each direction that is asked for."""
    sides = {"kl": (p, q, t), "reverse_kl": (q, p, -t)}
    return {name: side for name, side in sides.items() if name in also}


def _sum_series(t: Array) -> Array:
    """(e^t - 1 - t) / t^2 for |t| < SMALL."""
    first, *others = [
        1.0 / factorial(k + 2) for k in reversed(range(TERMS[namespace(t).finfo(t.dtype).bits // 8]))
    ]
    value = others[0] + first * t
    for coefficient in others[1:]:
        value = coefficient + t * value
    return value
