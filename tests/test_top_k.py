"""The bracket from the top k tokens holds the exact deviation, on every library."""

import numpy as np
import pytest
import statistics_oracle as oracle

import credit


def draw(noise, size=500, rows=30):
    rng = np.random.default_rng(17)
    y = 4.0 * rng.normal(size=(rows, size))
    return oracle.log_softmax(y + noise * rng.normal(size=y.shape)), oracle.log_softmax(y)


def top(log_p, log_q, k):
    order = np.argsort(-log_q, -1)[:, :k]
    return np.take_along_axis(log_p, order, -1), np.take_along_axis(log_q, order, -1)


@pytest.mark.parametrize("noise", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("k", [1, 16, 64, 400])
def test_the_bracket_holds_the_deviation(library, noise, k):
    log_p, log_q = draw(noise)
    exact = oracle.deviation(log_p, log_q)
    given = [library.asarray(array.astype(np.float32)) for array in top(log_p, log_q, k)]
    lower, upper = (library.numpy(bound) for bound in library.call(credit.top_k_deviation)(*given))
    assert (lower <= exact * (1 + 2e-3) + 1e-9).all()
    assert (upper >= exact * (1 - 2e-3) - 1e-9).all()
    assert (upper >= lower).all()
    assert upper.max() <= 1.0


def test_it_is_the_plain_formula():
    log_p, log_q = (a.astype(np.float64) for a in top(*draw(0.5), 16))
    p, q = np.exp(log_p), np.exp(log_q)
    rest_p, rest_q = 1 - p.sum(-1), 1 - q.sum(-1)
    common = np.sqrt(p * q).sum(-1)
    lower, upper = credit.top_k_deviation(log_p, log_q)
    np.testing.assert_allclose(lower, 1 - common - np.sqrt(rest_p * rest_q), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(upper, 1 - common, rtol=1e-9, atol=1e-12)


def test_more_tokens_tighten_the_bracket():
    log_p, log_q = draw(0.5)
    brackets = [credit.top_k_deviation(*top(log_p, log_q, k)) for k in (1, 8, 64, 400)]
    for wide, narrow in zip(brackets[:-1], brackets[1:], strict=True):
        assert (narrow.lower >= wide.lower - 1e-12).all()
        assert (narrow.upper <= wide.upper + 1e-12).all()


def test_edges():
    minus = -np.inf
    log_p = np.asarray([[0.0, minus], [minus, minus], [0.0, minus], [np.nan, -1.0]])
    log_q = np.asarray([[0.0, minus], [minus, minus], [minus, 0.0], [-1.0, -1.0]])
    lower, upper = credit.top_k_deviation(log_p, log_q)
    np.testing.assert_array_equal(lower, [0.0, 0.0, 1.0, np.nan])
    np.testing.assert_array_equal(upper, [0.0, 1.0, 1.0, np.nan])
    with pytest.raises(ValueError, match=r"expected \[..., k\] with k > 0"):
        credit.top_k_deviation(np.zeros((3, 0)), np.zeros((3, 0)))


def test_a_single_token_gives_the_binary_deviation(library):
    log_p, log_q = (library.asarray(array[..., 0].astype(np.float32)) for array in top(*draw(0.5), 1))
    lower = library.numpy(credit.top_k_deviation(log_p[..., None], log_q[..., None]).lower)
    np.testing.assert_array_equal(lower, library.numpy(credit.binary_deviation(log_p, log_q)))
    assert (lower > 0.0).all()


@pytest.mark.parametrize("kind", [np.int32, bool])
def test_only_floating_log_probs_are_accepted(library, kind):
    right, wrong = (library.asarray(np.zeros((2, 3), dtype)) for dtype in (np.float32, kind))
    with pytest.raises(ValueError, match="^log_probs is .*; expected floating point"):
        credit.top_k_deviation(wrong, right)
    with pytest.raises(ValueError, match="^reference_log_probs is .*; expected floating point"):
        credit.top_k_deviation(right, wrong)
