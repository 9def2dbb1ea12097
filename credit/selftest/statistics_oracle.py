"""Token statistics in float64 on whole rows of numpy arrays, and how far a backend may be from them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = Any


class Expected(NamedTuple):
    """As credit.TokenStatistics, but the entropy is in nats."""

    log_probs: Array
    reference_log_probs: Array
    entropy: Array
    deviation: Array


def log_softmax(logits: Array, temperature: Array = 1.0) -> Array:
    """ln softmax(x / T) [..., V]; NaN rows for NaN, +inf, or nothing but -inf."""
    with np.errstate(all="ignore"):
        x = np.asarray(logits, np.float64)
        scaled = (x - x.max(-1, keepdims=True)) / np.asarray(temperature, np.float64)[..., None]
        return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def entropy(log_p: Array) -> Array:
    """-sum p ln p [...] in nats, with p ln p = 0 at p = 0."""
    return -np.where(log_p == -np.inf, 0.0, np.exp(log_p) * np.maximum(log_p, -1e300)).sum(-1)


def deviation(log_p: Array, log_q: Array) -> Array:
    """1 - sum sqrt(p q) [...] as 1/2 sum (sqrt p - sqrt q)^2."""
    return 0.5 * ((np.exp(log_p / 2) - np.exp(log_q / 2)) ** 2).sum(-1)


def sum_squares(log_p: Array) -> Array:
    """sum p^2 [...]."""
    return np.exp(2.0 * log_p).sum(-1)


def divergence(log_p: Array, log_q: Array) -> Array:
    """KL(p || q) = sum p (ln p - ln q) [...], 0 where p has no mass in float32; NaN of a bad model."""
    p = np.exp(log_p)
    with np.errstate(all="ignore"):
        return np.where(p < 1e-40, 0.0 * np.exp(log_q), p * (log_p - log_q)).sum(-1)


def selected(log_p: Array, token_ids: Array) -> Array:
    """The entries [...] of log_p [..., V] at token_ids [...]."""
    return np.take_along_axis(log_p, np.asarray(token_ids)[..., None], -1)[..., 0]


def statistics(
    policy_logits: Array, reference_logits: Array, token_ids: Array, temperature: Array = 1.0
) -> Expected:
    """The four numbers per token."""
    log_p, log_q = (log_softmax(x, temperature) for x in (policy_logits, reference_logits))
    return Expected(
        selected(log_p, token_ids), selected(log_q, token_ids), entropy(log_p), deviation(log_p, log_q)
    )


def further(policy_logits: Array, reference_logits: Array, temperature: Array = 1.0) -> dict[str, Array]:
    """The statistics that are asked for by name."""
    log_p, log_q = (log_softmax(x, temperature) for x in (policy_logits, reference_logits))
    return {
        "sum_squares": sum_squares(log_p),
        "kl": divergence(log_p, log_q),
        "reverse_kl": divergence(log_q, log_p),
        "entropy": entropy(log_p),
    }


def further_errors(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, float]:
    """As `errors`, for the statistics that are asked for by name, however many of them.

    sum p^2: relative 1e-5.  KL: relative 2e-3, and 2e-4 where KL >= 4e-7, never more than 2e-6 (1 + KL), and
    4e-12 is free.  (Near models have KL = 4 d.)  H: 5e-6 nats.
    """
    found = {name: np.asarray(field, np.float64) for name, field in actual.items()}
    return {name: _further_error(name, field, expected[name]) for name, field in found.items()}


def _further_error(name: str, actual: Array, expected: Array) -> float:
    if name == "entropy":
        return entropy_error(actual, expected)
    if name == "sum_squares":
        return _share_of_bound(actual, expected, 1e-5 * expected)
    # Sums of terms beyond it may leave float32's range.
    actual, expected = (np.where(field > 1e30, np.inf, field) for field in (actual, expected))
    finite = np.where(np.isfinite(expected), expected, 0.0)
    relative = np.where(finite >= 4e-7, 2e-4, 2e-3) * finite
    return _share_of_bound(actual, expected, np.fmin(np.fmax(relative, 4e-12), 2e-6 * (1.0 + finite)))


def errors(actual: Sequence[Array], expected: Expected, size: int) -> dict[str, float]:
    """How much of its bound each statistic uses, at most 1 where it holds; `actual` as numpy arrays.

    log p, log q: 1e-5 + 3e-7 |log p|.  H: 5e-6 nats.  d: 1e-6 absolute; relative 1e-2 where d >= 1e-9
    and 1e-3 where d >= 1e-7.
    """
    log_p, log_q, h, d = (np.asarray(field, np.float64) for field in actual)
    relative = np.where(expected.deviation >= 1e-7, 1e-3, 1e-2) * expected.deviation
    allowed = np.where(expected.deviation >= 1e-9, np.fmin(relative, 1e-6), 1e-6)
    return {
        "log_probs": log_prob_error(log_p, expected.log_probs),
        "reference_log_probs": log_prob_error(log_q, expected.reference_log_probs),
        "entropy": entropy_error(h * np.log(size) if size > 1 else h, expected.entropy),
        "deviation": _share_of_bound(d, expected.deviation, allowed),
    }


def log_prob_error(actual: Array, expected: Array) -> float:
    """How much of its bound a log-probability uses."""
    with np.errstate(over="ignore"):  # below float32's range only -inf is left
        expected = np.where(np.isinf(expected.astype(np.float32)), -np.inf, expected)
    finite = np.where(np.isfinite(expected), expected, 0.0)
    return _share_of_bound(actual, expected, 1e-5 + 3e-7 * np.abs(finite))


def entropy_error(actual: Array, expected: Array) -> float:
    """How much of its bound an entropy in nats uses."""
    return _share_of_bound(actual, expected, 5e-6)


def _share_of_bound(actual: Array, expected: Array, bound: Array) -> float:
    """The largest |actual - expected| / bound; infinite where only one of them is NaN or infinite."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(all="ignore"):
        used = np.where(equal, 0.0, np.abs(actual - expected) / bound)
    return float(np.max(np.where(np.isnan(used), np.inf, used), initial=0.0))
