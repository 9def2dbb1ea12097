"""The two-bin distance against the definition in high precision, and against the whole vocabulary."""

import subprocess
import sys
from math import inf, nan

import numpy as np
import pytest

import credit


def of_numpy(values, dtype):
    return np.asarray(values, dtype)


def of_torch(values, dtype):
    torch = pytest.importorskip("torch")
    return torch.tensor(np.asarray(values, dtype))


libraries = pytest.mark.parametrize("array", [of_numpy, of_torch])


def two_bins(lp, lq):
    """The definition, in extended precision, from log-probs that are taken as exact."""
    lp, lq = np.asarray(lp, np.longdouble), np.asarray(lq, np.longdouble)
    p, q, rest_p, rest_q = np.exp(lp), np.exp(lq), -np.expm1(lp), -np.expm1(lq)
    roots = (np.sqrt(p) - np.sqrt(q)) ** 2 + (np.sqrt(rest_p) - np.sqrt(rest_q)) ** 2
    return (roots / 2).astype(np.float64)


@libraries
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_the_definition_and_does_not_cancel(array, dtype):
    rng = np.random.default_rng(0)
    lp = -(10 ** rng.uniform(-4, 1.3, 2000)).astype(dtype)
    lq = (lp * (1 + rng.normal(size=2000) * 10 ** rng.uniform(-4, -0.5, 2000))).clip(max=0).astype(dtype)
    found = np.asarray(credit.binary_deviation(array(lp, dtype), array(lq, dtype)))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, two_bins(lp, lq), rtol=1e-5 if dtype == "float32" else 1e-9, atol=0)


@libraries
def test_it_is_a_lower_bound_of_the_deviation_over_the_vocabulary(array):
    rng = np.random.default_rng(1)
    logits = 3 * rng.normal(size=(2, 500, 40))
    logits[1] = logits[0] + 0.3 * logits[1]
    whole = credit.token_statistics(*(array(x, "float64") for x in logits), array([7] * 500, "int64"))
    bound = np.asarray(credit.binary_deviation(whole.log_probs, whole.reference_log_probs))
    assert (bound <= np.asarray(whole.deviation) + 1e-12).all()
    assert (bound > 0).all()
    pair = logits[:, :, :2]  # with two tokens in all, nothing is merged
    whole = credit.token_statistics(*(array(x, "float64") for x in pair), array([1] * 500, "int64"))
    bound = credit.binary_deviation(whole.log_probs, whole.reference_log_probs)
    np.testing.assert_allclose(np.asarray(bound), np.asarray(whole.deviation), rtol=1e-9)


@libraries
def test_the_edges(array):
    lp = array([0.0, -1.0, -inf, 0.0, -inf, -2.0, nan, 1e-7, -1e-6], "float32")
    lq = array([0.0, -1.0, -inf, -inf, 0.0, -inf, -1.0, 0.0, -1e-6], "float32")
    found = np.asarray(credit.binary_deviation(lp, lq))
    one = 1 - np.sqrt(1 - np.exp(-2.0))  # q = 0: 1 - sqrt(1 - p)
    np.testing.assert_allclose(found, [0, 0, 0, 1, 1, one, nan, 0, 0], rtol=1e-6)
    assert (found[[0, 1, 2, 7, 8]] == 0).all()


def test_no_gradient_and_low_precision():
    torch = pytest.importorskip("torch")
    lp = torch.tensor([-1.0, -0.5], dtype=torch.bfloat16, requires_grad=True)
    found = credit.binary_deviation(lp, lp.detach() * 2)
    assert not found.requires_grad
    assert found.dtype == torch.float32


@libraries
def test_errors(array):
    lp = array([-1.0, -2.0], "float32")
    with pytest.raises(ValueError, match=r"reference_log_probs has shape \(1,\); expected \(2,\)"):
        credit.binary_deviation(lp, lp[:1])
    with pytest.raises(ValueError, match="log_probs is .*int64; expected floating point"):
        credit.binary_deviation(array([-1, -2], "int64"), lp)
    with pytest.raises(ValueError, match="reference_log_probs is a list"):
        credit.binary_deviation(lp, [-1.0, -2.0])


def test_the_core_still_imports_no_framework():
    code = "import sys, credit; assert not {'torch', 'jax', 'verl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
