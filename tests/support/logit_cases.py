"""Pairs of float32 logits [N, V] that every backend gets right; each function makes one of them."""

import numpy as np

SIZE = 20_011  # more than one chunk, and no multiple of anything
LOWEST = float(np.finfo(np.float32).min)


def ordinary(rng, rows=6, size=SIZE, noise=1.0):
    x = 3.0 * rng.normal(size=(rows, size))
    return _single(x, x + noise * rng.normal(size=(rows, size)))


def one_entry(rng):
    return ordinary(rng, size=1)


def three_entries(rng):
    return ordinary(rng, size=3)


def no_tokens(rng):
    return ordinary(rng, rows=0)


def masked_policy(rng):
    x, y = ordinary(rng)
    return np.where(rng.random(x.shape) < 0.3, -np.inf, x), y


def masked_reference(rng):
    y, x = masked_policy(rng)
    return x, y


def masked_differently(rng):
    x, y = masked_policy(rng)
    return x, np.where(rng.random(y.shape) < 0.3, -np.inf, y)


def long_heads_and_tails(rng):
    """-inf over whole chunks at the start of one model and the end of the other, then of both."""
    x, y = ordinary(rng, size=2 * SIZE)
    x[:3, :17_000], y[:3, -17_000:] = -np.inf, -np.inf
    x[3:, :33_000], y[3:, :34_000] = -np.inf, -np.inf
    return x, y


def disjoint_tails(rng):
    """One model lives on the first half, the other on the second: d = 1."""
    x, y = ordinary(rng, size=2 * SIZE)
    x[:, SIZE:], y[:, :SIZE] = -np.inf, -np.inf
    return x, y


def finite_heads(rng):
    x, y = ordinary(rng, size=2 * SIZE)
    for row, value in enumerate((-1e9, -1e38, LOWEST)):
        x[row, :17_000] = value
        y[row + 3, :17_000] = value
        x[row + 3, -19_000:] = value
    return x, y


def finite_rows(rng):
    x, y = ordinary(rng)
    for row, value in enumerate((-1e9, -1e38, LOWEST)):
        x[row] = value
        y[row + 3] = value
    y[0] = LOWEST
    return x, y


def large(rng):
    return tuple(rng.uniform(-1e4, 1e4, size=(6, SIZE)).astype(np.float32) for _ in range(2))


def offsets(rng):
    x, y = ordinary(rng, noise=0.1)
    shift = np.asarray([1e4, -1e4, 1e4, -1e4, 0.0, 1e4])[:, None]
    return _single(x + shift, y - np.roll(shift, 1))


def one_hots_apart(rng):
    x, y = one_hots(rng)
    return x, np.roll(y, 1, axis=-1)


def one_hots(rng):
    x = np.full((6, SIZE), -np.inf, np.float32)
    x[np.arange(6), [0, 1, 511, 16_383, 16_384, SIZE - 2]] = [0.0, 5.0, -3e38, 3e38, -7.0, 1e4]
    return x, x.copy()


def moved_top(rng, delta, place):
    """A flat row whose top token moves."""
    x = np.zeros((2, 151_936), np.float32)
    x[1] = 1e-3 * rng.normal(size=x.shape[1])
    x[:, place] = 1.0
    y = x.copy()
    y[:, place] += np.float32(delta)
    return x, y


def near(rng, noise):
    return ordinary(rng, rows=2, size=151_936, noise=noise)


CASES = {
    function.__name__: function
    for function in (
        ordinary,
        one_entry,
        three_entries,
        no_tokens,
        masked_policy,
        masked_reference,
        masked_differently,
        long_heads_and_tails,
        disjoint_tails,
        finite_heads,
        finite_rows,
        large,
        offsets,
        one_hots_apart,
        one_hots,
    )
}


def _single(*arrays):
    return tuple(array.astype(np.float32) for array in arrays)
