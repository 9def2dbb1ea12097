"""Plain float64 answers on whole rows of numpy arrays, and how far a backend may be from them."""

from typing import NamedTuple

import numpy as np


class Expected(NamedTuple):
    """As credit.TokenStatistics, but the entropy is in nats."""

    log_probs: np.ndarray
    reference_log_probs: np.ndarray
    entropy: np.ndarray
    deviation: np.ndarray


def log_softmax(logits, temperature=1.0):
    """ln softmax(x / T) [..., V]; NaN rows for NaN, +inf, or nothing but -inf."""
    with np.errstate(all="ignore"):
        x = np.asarray(logits, np.float64)
        scaled = (x - x.max(-1, keepdims=True)) / np.asarray(temperature, np.float64)[..., None]
        return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def entropy(log_p):
    """-sum p ln p [...] in nats, with p ln p = 0 at p = 0."""
    return -np.where(log_p == -np.inf, 0.0, np.exp(log_p) * np.maximum(log_p, -1e300)).sum(-1)


def deviation(log_p, log_q):
    """1 - sum sqrt(p q) [...] as 1/2 sum (sqrt p - sqrt q)^2."""
    return 0.5 * ((np.exp(log_p / 2) - np.exp(log_q / 2)) ** 2).sum(-1)


def selected(log_p, token_ids):
    """The entries [...] of log_p [..., V] at token_ids [...]."""
    return np.take_along_axis(log_p, np.asarray(token_ids)[..., None], -1)[..., 0]


def statistics(policy_logits, reference_logits, token_ids, temperature=1.0):
    """The four numbers per token."""
    log_p, log_q = (log_softmax(x, temperature) for x in (policy_logits, reference_logits))
    return Expected(
        selected(log_p, token_ids), selected(log_q, token_ids), entropy(log_p), deviation(log_p, log_q)
    )


def head_logits(hidden, head, bias=None, scale=1.0, soft_cap=None):
    """c tanh(scale (h W^T + bias) / c) [..., V]."""
    logits = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64).T
    logits = scale * (logits if bias is None else logits + np.asarray(bias, np.float64))
    return logits if soft_cap is None else soft_cap * np.tanh(logits / soft_cap)


def gradients(logits, token_ids, temperature=1.0):
    """d log p(a) / dx and dH / dx, both [..., V]."""
    log_p = log_softmax(logits, temperature)
    p, scale = np.exp(log_p), 1.0 / np.asarray(temperature, np.float64)[..., None]
    hit = np.arange(p.shape[-1]) == np.asarray(token_ids)[..., None]
    slope = np.where(p > 0, p * (np.maximum(log_p, -1e300) + entropy(log_p)[..., None]), 0.0 * p)
    return (hit - p) * scale, -slope * scale


def errors(actual, expected, size):
    """How much of its bound each statistic uses, at most 1 where it holds; `actual` as numpy arrays.

    log p, log q: 1e-5 + 3e-7 |log p|.  H: 5e-6 nats.  d: 1e-6 absolute; relative 1e-2 where d >= 1e-9
    and 1e-3 where d >= 1e-7.
    """
    log_p, log_q, h, d = (np.asarray(field, np.float64) for field in actual)
    nats = h * np.log(size) if size > 1 else h
    relative = np.where(expected.deviation >= 1e-7, 1e-3, 1e-2) * expected.deviation
    allowed = np.where(expected.deviation >= 1e-9, np.fmin(relative, 1e-6), 1e-6)
    return {
        "log_probs": _log_prob_use(log_p, expected.log_probs),
        "reference_log_probs": _log_prob_use(log_q, expected.reference_log_probs),
        "entropy": _use(nats, expected.entropy, 5e-6),
        "deviation": _use(d, expected.deviation, allowed),
    }


def _log_prob_use(actual, expected):
    with np.errstate(over="ignore"):  # below float32's range only -inf is left
        expected = np.where(np.isinf(expected.astype(np.float32)), -np.inf, expected)
    return _use(actual, expected, 1e-5 + 3e-7 * np.abs(np.where(np.isfinite(expected), expected, 0.0)))


def _use(actual, expected, bound):
    """The largest |actual - expected| / bound; infinite where only one of them is NaN or infinite."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(all="ignore"):
        used = np.where(equal, 0.0, np.abs(actual - expected) / bound)
    return float(np.max(np.where(np.isnan(used), np.inf, used), initial=0.0))
