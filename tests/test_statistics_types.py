"""Every type that logits and ids may have."""

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle
from measuring import assert_within_bounds, measure, token_ids

import credit


@pytest.fixture
def rng():
    return np.random.default_rng(20_260)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_low_precision_logits(library, rng, kind):
    if library.name == "array_api_strict":
        pytest.skip("the standard has neither type")
    x, y = (lower(array, kind) for array in logit_cases.masked_differently(rng))
    ids = token_ids(rng, x)
    actual = measure(Cast(library, kind), (x, y, ids))
    assert all(field.dtype == np.float32 for field in actual)
    assert_within_bounds(actual, x, y, ids)


def test_mixed_precisions_are_computed_in_float32(library, rng):
    x, y = logit_cases.ordinary(rng)
    ids = token_ids(rng, x)
    y = y.astype(np.float16) if library.name == "jax" else y.astype(np.float64)
    if library.name == "array_api_strict":
        pytest.skip("float64 is one of its standard types, float16 is not")
    actual = measure(library, (x, y, ids))
    assert all(field.dtype == np.float32 for field in actual)
    assert_within_bounds(actual, x, y, ids)


def test_float64_logits_are_computed_in_float64(library, rng):
    if library.name == "jax":
        pytest.skip("JAX has float64 only when it is switched on (test_statistics_jax.py)")
    x, y = (array.astype(np.float64) for array in logit_cases.masked_differently(rng))
    ids = token_ids(rng, x)
    *actual, deviation = measure(library, (x, y, ids), temperature=0.7)
    expected = oracle.statistics(x, y, ids, 0.7)
    np.testing.assert_allclose(actual[0], expected.log_probs, rtol=1e-12)
    np.testing.assert_allclose(actual[1], expected.reference_log_probs, rtol=1e-12)
    np.testing.assert_allclose(actual[2] * np.log(x.shape[-1]), expected.entropy, rtol=1e-12)
    np.testing.assert_allclose(deviation, expected.deviation, rtol=1e-11)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_every_integer_type_of_ids(library, rng, kind):
    if library.name == "jax" and "64" in kind:
        pytest.skip("JAX has 64-bit integers only when they are switched on (test_statistics_jax.py)")
    x, y = logit_cases.ordinary(rng, size=300)
    ids = np.asarray([0, 1, 2, 50, 100, 127], kind)
    assert_within_bounds(measure(library, (x, y, ids)), x, y, ids.astype(np.int64))


def test_read_only_inputs_are_left_alone(rng):
    x, y = logit_cases.ordinary(rng)
    ids = token_ids(rng, x)
    mask = np.ones(6, bool)
    for array in (x, y, ids, mask):
        array.flags.writeable = False
    assert_within_bounds(credit.token_statistics(x, y, ids, mask=mask), x, y, ids)


class Cast:
    """A library whose arrays of logits have a type that numpy lacks."""

    def __init__(self, library, kind):
        self.name, self.call, self.numpy = library.name, library.call, library.numpy
        self.library, self.kind = library, kind

    def asarray(self, array):
        if array.dtype.kind != "f" and array.dtype.kind != "V":
            return self.library.asarray(array)
        if self.name != "torch":
            return self.library.asarray(array.astype(self.kind))
        import torch

        return self.library.asarray(array.astype(np.float32)).to(getattr(torch, self.kind))


def lower(array, kind):
    """The float32 values that are left after rounding to `kind`."""
    pytest.importorskip("ml_dtypes")
    return array.astype(kind).astype(np.float32)
