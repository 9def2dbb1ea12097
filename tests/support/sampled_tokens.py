"""Distributions over a small vocabulary, for what is known of them from the log-probs of some tokens."""

import numpy as np
import sampled_log_probs  # noqa: F401

from credit.estimators.base import CLASSES

RANDOM = np.random.default_rng(0)
VOCABULARY = 12
# Imported, the example registers its estimator; other tests go over all that are registered.
BOUNDED_DEVIATION = CLASSES.pop("bounded_deviation")


def draw_distributions(shape, scale=0.5):
    """log p and log q [*shape, V] in float64, a little apart."""
    p = RANDOM.normal(size=(*shape, VOCABULARY))
    q = p + scale * RANDOM.normal(size=p.shape)
    return normalize(p), normalize(q)


def normalize(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def compute_deviation(log_p, log_q):
    return 1 - np.exp((log_p + log_q) / 2).sum(-1)


def pick(log_probs, ids):
    """The log-probs [...] of the ids [...], from [..., V]."""
    return np.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0]
