"""The float64 answers of `python -m credit.check`, and further ones that only the tests need."""

import numpy as np

from credit.selftest.statistics_oracle import (
    Expected,
    deviation,
    entropy,
    errors,
    further,
    further_errors,
    log_softmax,
    selected,
    statistics,
)

__all__ = [
    "Expected",
    "deviation",
    "entropy",
    "errors",
    "further",
    "further_errors",
    "gradients",
    "head_logits",
    "log_softmax",
    "selected",
    "statistics",
]


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
