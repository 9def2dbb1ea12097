"""Log-probs, entropy and deviation from logits, against float64 and within the documented bounds."""

import tracemalloc

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle
from measuring import assert_within_bounds, measure, token_ids

import credit

NOISE = (1e-4, 1e-3, 1e-2, 1.0)
TEMPERATURES = (0.05, 10.0)


@pytest.fixture
def rng():
    return np.random.default_rng(20_260)


@pytest.mark.parametrize("case", logit_cases.CASES)
def test_every_case_is_within_bounds(library, rng, case):
    x, y = logit_cases.CASES[case](rng)
    ids = token_ids(rng, x)
    actual = measure(library, (x, y, ids))
    assert all(field.dtype == np.float32 and field.shape == ids.shape for field in actual)
    assert_within_bounds(actual, x, y, ids)


@pytest.mark.parametrize("place", [0, 100_000])
@pytest.mark.parametrize("delta", [0.1, 1.0, 2.2])
def test_flat_row_whose_top_token_moves(library, rng, delta, place):
    x, y = logit_cases.moved_top(rng, delta, place)
    ids = token_ids(rng, x)
    assert_within_bounds(measure(library, (x, y, ids)), x, y, ids)


@pytest.mark.parametrize("noise", NOISE)
def test_deviation_of_near_models_is_relatively_accurate(library, rng, noise):
    x, y = logit_cases.near(rng, noise)
    ids = token_ids(rng, x)
    assert_within_bounds(measure(library, (x, y, ids)), x, y, ids)


@pytest.mark.parametrize("case", ["ordinary", "masked_policy", "finite_heads", "large", "one_hots"])
def test_identical_models_deviate_by_exactly_zero(library, rng, case):
    x, _ = logit_cases.CASES[case](rng)
    log_probs, reference, _, deviation = measure(library, (x, x.copy(), token_ids(rng, x)))
    np.testing.assert_array_equal(deviation, 0.0)
    np.testing.assert_array_equal(log_probs, reference)


def test_one_hots_have_exact_statistics(library, rng):
    x, y = logit_cases.one_hots_apart(rng)
    log_probs, reference, entropy, deviation = measure(library, (x, y, x.argmax(-1)))
    np.testing.assert_array_equal(log_probs, 0.0)
    np.testing.assert_array_equal(reference, -np.inf)
    np.testing.assert_array_equal(entropy, 0.0)
    np.testing.assert_array_equal(deviation, 1.0)


def test_one_entry_is_certain(library, rng):
    x, y = logit_cases.one_entry(rng)
    for field in measure(library, (x, y, np.zeros(6, np.int32))):
        np.testing.assert_array_equal(field, 0.0)


def test_equal_logits_have_normalized_entropy_one(library):
    x = np.full((3, logit_cases.SIZE), -3.5, np.float32)
    entropy = measure(library, (x, x, np.arange(3)))[2]
    np.testing.assert_allclose(entropy, 1.0, atol=1e-6)
    assert entropy.max() <= 1.0


@pytest.mark.parametrize("spread", [1e-4, 30.0])
def test_rounding_leaves_no_statistic_outside_its_range(library, rng, spread):
    """Thousands of rows that are nearly flat, or nearly certain and nearly apart."""
    x, y = (spread * rng.normal(size=(5_000, 9)).astype(np.float32) for _ in range(2))
    y = y if spread < 1 else y - 3 * x
    log_probs, reference, entropy, deviation = measure(library, (x, y, x.argmax(-1)))
    assert max(log_probs.max(), reference.max()) <= 0.0
    for field in (entropy, deviation):
        assert field.min() >= 0.0
        assert field.max() <= 1.0


@pytest.mark.parametrize("case", ["ordinary", "masked_differently", "large", "offsets", "finite_heads"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_temperature(library, rng, case, temperature):
    x, y = logit_cases.CASES[case](rng)
    ids = token_ids(rng, x)
    assert_within_bounds(measure(library, (x, y, ids), temperature=temperature), x, y, ids, temperature)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_temperature_as_numpy_scalar(library, rng, kind):
    x, y = logit_cases.three_entries(rng)
    ids, temperature = token_ids(rng, x), kind(2)
    assert_within_bounds(measure(library, (x, y, ids), temperature=temperature), x, y, ids, 2.0)


@pytest.mark.parametrize("shape", [(), (6,)])
def test_temperature_as_array(library, rng, shape):
    x, y = logit_cases.ordinary(rng)
    ids = token_ids(rng, x)
    temperature = np.geomspace(0.05, 10, 6).astype(np.float32)[: 6 if shape else 1].reshape(shape)
    actual = measure(library, (x, y, ids), temperature=temperature)
    assert_within_bounds(actual, x, y, ids, np.broadcast_to(temperature, ids.shape))


@pytest.mark.parametrize("shape", [(), (2, 3), (2, 0, 3), (1, 1, 40)])
def test_leading_shapes(library, rng, shape):
    x, y = logit_cases.ordinary(rng, rows=int(np.prod(shape)), size=17_000)
    x, y = (array.reshape(*shape, 17_000) for array in (x, y))
    ids = token_ids(rng, x)
    actual = measure(library, (x, y, ids), temperature=0.7)
    assert all(field.shape == shape for field in actual)
    assert_within_bounds(actual, x, y, ids, 0.7)


def test_poisoned_tokens_hurt_only_themselves_and_their_model(library, rng):
    x, y = logit_cases.ordinary(rng, rows=8)
    ids = token_ids(rng, x)
    x[1, 7], x[2, 20_000], x[3] = np.nan, np.inf, -np.inf
    y[4, 20_000], y[5, 7], y[6] = np.nan, np.inf, -np.inf
    actual = measure(library, (x, y, ids))
    policy, reference = np.isin(np.arange(8), (1, 2, 3)), np.isin(np.arange(8), (4, 5, 6))
    for field, bad in zip(actual, (policy, reference, policy, policy | reference), strict=True):
        np.testing.assert_array_equal(np.isnan(field), bad)
    assert_within_bounds(actual, x, y, ids)


def test_masked_tokens_are_zero_and_their_ids_unread(library, rng):
    x, y = logit_cases.ordinary(rng)
    ids = token_ids(rng, x)
    clean = oracle.statistics(x, y, ids)
    mask = np.asarray([True, False, True, False, False, True])
    ids = np.where(mask, ids, [0, -100, 0, 2**31 - 1, logit_cases.SIZE, 0]).astype(np.int32)
    x[1], y[3], x[4, 5] = np.nan, -np.inf, np.inf
    for kind in (bool, np.int32, np.float32):
        actual = measure(library, (x, y, ids), mask=mask.astype(kind))
        for field in actual:
            np.testing.assert_array_equal(field[~mask], 0.0)
        kept = [field[mask] for field in actual]
        used = oracle.errors(kept, oracle.Expected(*(field[mask] for field in clean)), x.shape[-1])
        assert max(used.values()) <= 1.0, used


def test_padding_beyond_the_vocabulary_is_ignored(library, rng):
    x, y = logit_cases.ordinary(rng)
    ids = token_ids(rng, x)
    padded_x = np.concatenate([x, np.full((6, 53), np.nan, np.float32)], -1)
    padded_y = np.concatenate([y, np.full((6, 7), 1e4, np.float32)], -1)
    actual = measure(library, (padded_x, padded_y, ids), vocab_size=logit_cases.SIZE)
    assert_within_bounds(actual, x, y, ids)


def test_strided_logits_are_read_in_place_on_numpy(rng):
    x, y = (rng.random((8, 65, 20_000), np.float32) for _ in range(2))
    ids = rng.integers(20_000, size=(8, 64))
    tracemalloc.start()
    try:
        actual = credit.token_statistics(x[:, :-1], y[:, :-1], ids)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x[:, :-1].size * 4 / 2  # bytes: half of one model's logits
    rows = slice(0, 2), slice(0, 64, 9)
    assert_within_bounds([field[rows] for field in actual], x[rows], y[rows], ids[rows])


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_reference_can_be_forced(rng, monkeypatch, name):
    library = pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[name])
    x, y = logit_cases.masked_differently(rng)
    ids = token_ids(rng, x)
    called = []
    monkeypatch.setenv("CREDIT_BACKEND", "array_api")
    reference = credit.backends.array_api.token_statistics
    monkeypatch.setattr(
        credit.backends.array_api, "token_statistics", lambda *a: called.append(1) or reference(*a)
    )
    actual = credit.token_statistics(*(library.asarray(array) for array in (x, y, ids)))
    assert called == [1]
    assert_within_bounds(actual, x, y, ids)


def test_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("CREDIT_BACKEND", "fast")
    with pytest.raises(ValueError, match="CREDIT_BACKEND is 'fast'; it may be 'array_api'"):
        credit.selected_log_probs(np.zeros((2, 3)), np.asarray([0, 1]))
