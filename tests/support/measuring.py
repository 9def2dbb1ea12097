"""Runs token_statistics on any library and holds it to the documented bounds."""

import numpy as np
import statistics_oracle as oracle

import credit


def token_ids(rng, policy_logits):
    """An id per row: a probable one in the first and every third row, else any."""
    *tokens, size = policy_logits.shape
    ids = rng.integers(size, size=tokens)
    likely = policy_logits.argmax(-1) if policy_logits.size else ids
    return np.where(np.arange(ids.size).reshape(ids.shape) % 3 == 0, likely, ids).astype(np.int32)


def measure(library, arrays, **settings):
    """The four statistics as numpy arrays, jitted on JAX."""
    given = [library.asarray(array) for array in arrays]
    if not settings:
        return [library.numpy(f) for f in library.call(credit.token_statistics)(*given)]
    names = [name for name in settings if isinstance(settings[name], np.ndarray)]
    traced = [library.asarray(settings.pop(name)) for name in names]

    def function(x, y, ids, *rest):
        return credit.token_statistics(x, y, ids, **settings, **dict(zip(names, rest, strict=True)))

    return [library.numpy(field) for field in library.call(function)(*given, *traced)]


def assert_within_bounds(actual, x, y, ids, temperature=1.0):
    expected = oracle.statistics(x, y, ids, temperature)
    used = oracle.errors(actual, expected, x.shape[-1])
    assert max(used.values()) <= 1.0, used
