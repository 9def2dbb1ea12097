"""The TPU kernel: in Pallas's interpreter, and lowered for a TPU on this host."""

from functools import partial

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle

jax = pytest.importorskip("jax")
jnp = jax.numpy

from credit.backends.jax import pallas  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(13)


interpreted = jax.jit(partial(pallas.token_statistics, interpret=True), static_argnames="also")
ALSO = ("reverse_kl", "entropy", "kl", "sum_squares")


def measure(x, y, ids, temperature=1.0, also=()):
    half = jnp.full(ids.shape, 0.5 / temperature, jnp.float32)
    fields = interpreted(*(jnp.asarray(a) for a in (x, y, ids)), half, also=also)  # compiled once per shape
    if also:
        return {name: np.asarray(field) for name, field in zip(also, fields[4:], strict=True)}
    log_p, log_q, entropy, deviation = (np.asarray(field) for field in fields)
    return log_p, log_q, entropy / max(np.log(x.shape[-1]), 1e-30), deviation


def assert_within_bounds(actual, x, y, ids, temperature=1.0):
    used = oracle.errors(actual, oracle.statistics(x, y, ids, temperature), x.shape[-1])
    assert max(used.values()) <= 1.0, used


@pytest.mark.parametrize("case", logit_cases.CASES)
def test_every_case_is_within_bounds(rng, case):
    x, y = logit_cases.CASES[case](rng)
    ids = rng.integers(x.shape[-1], size=len(x)).astype(np.int32)
    assert_within_bounds(measure(x, y, ids, 0.7), x, y, ids, 0.7)


def test_poisoned_tokens_hurt_only_themselves_and_their_model(rng):
    x, y = logit_cases.ordinary(rng, rows=8)
    x[1, 7], x[2, -1], x[3] = np.nan, np.inf, -np.inf
    y[4, -1], y[5, 7], y[6] = np.nan, np.inf, -np.inf
    ids = rng.integers(x.shape[-1], size=8).astype(np.int32)
    policy, reference = np.isin(np.arange(8), (1, 2, 3)), np.isin(np.arange(8), (4, 5, 6))
    for field, bad in zip(measure(x, y, ids), (policy, reference, policy, policy | reference), strict=True):
        np.testing.assert_array_equal(np.isnan(field), bad)


def test_identical_models_and_bfloat16(rng):
    x = logit_cases.masked_policy(rng)[0].reshape(2, 3, -1)
    x = jnp.asarray(x, jnp.bfloat16)
    ids = np.zeros((2, 3), np.int32)
    actual = measure(x, x, ids)
    # The interpreter runs through XLA, which may contract one model's sums and not the other's.
    np.testing.assert_allclose(actual[3], 0.0, atol=1e-14)
    wide = np.asarray(x.astype(jnp.float32))
    assert_within_bounds(actual, wide, wide, ids)


@pytest.mark.parametrize("case", ["masked_differently", "offsets", "finite_heads"])
def test_what_is_asked_for_is_within_bounds(rng, case):
    x, y = logit_cases.CASES[case](rng)
    ids = rng.integers(x.shape[-1], size=len(x)).astype(np.int32)
    used = oracle.further_errors(measure(x, y, ids, 0.7, ALSO), oracle.further(x, y, 0.7))
    assert max(used.values()) <= 1.0, used


@pytest.mark.parametrize("also", [(), ALSO], ids=["four", "more"])
@pytest.mark.parametrize("kind", ["bfloat16", "float32"])
def test_it_lowers_for_a_tpu(kind, also):
    logits, ids = jax.ShapeDtypeStruct((60, 151_936), kind), jax.ShapeDtypeStruct((60,), "int32")
    half = jax.ShapeDtypeStruct((60,), "float32")
    function = jax.jit(partial(pallas.token_statistics, also=also))
    exported = jax.export.export(function, platforms=["tpu"])(logits, logits, ids, half)
    assert "tpu_custom_call" in exported.mlir_module()


def test_on_a_tpu_it_is_chosen(monkeypatch):
    import credit

    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    logits, ids = jax.ShapeDtypeStruct((4, 3001), "float32"), jax.ShapeDtypeStruct((4,), "int32")
    jax.clear_caches()
    exported = jax.export.export(jax.jit(credit.token_statistics), platforms=["tpu"])(logits, logits, ids)
    jax.clear_caches()
    assert "tpu_custom_call" in exported.mlir_module()


@pytest.mark.parametrize("form", ["", "5000", "whole"])
def test_every_form_of_the_loop(rng, monkeypatch, form):
    import credit

    monkeypatch.setenv("CREDIT_JAX_FORM", form)
    jax.clear_caches()
    x, y = logit_cases.near(rng, 0.1)
    ids = rng.integers(x.shape[-1], size=2).astype(np.int32)
    text = jax.jit(credit.token_statistics).lower(x, y, ids).as_text()
    assert ("stablehlo.while" in text) == (form != "whole")
    assert (f"tensor<2x{form}xf32>" in text) == (form == "5000")
    actual = jax.jit(credit.token_statistics)(x, y, ids)
    assert_within_bounds([np.asarray(field) for field in actual], x, y, ids)
    jax.clear_caches()


def test_a_gpu_takes_larger_chunks(monkeypatch):
    """A quarter of the rounds, where the temporaries of a round may be larger."""
    from credit.backends.jax import chunk_loop

    rows, rounds = 8_192, {}
    for device in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda device=device: device)
        rounds[device] = -(-151_936 // chunk_loop.chunk_for_rows(rows))
        assert chunk_loop.chunk_for_rows(1) <= 16_384
    assert rounds == {"cpu": 297, "gpu": 75}


@pytest.mark.parametrize("form", ["", "whole"])
def test_the_form_on_a_gpu_is_one_constant_that_heads_do_not_follow(monkeypatch, form):
    """Lowered for CUDA, which takes no GPU: only the whole form names float32 arrays of the logits' size."""
    import credit
    from credit.backends import limits

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(limits, "JAX_FORM_ON_GPU", form)
    jax.clear_caches()

    def lowered(function, *shapes):
        arguments = [jax.ShapeDtypeStruct(shape, "bfloat16") for shape in shapes]
        ids = jax.ShapeDtypeStruct((64,), "int32")
        return jax.export.export(jax.jit(function), platforms=["cuda"])(*arguments, ids).mlir_module()

    logits = lowered(credit.token_statistics, (64, 60_000), (64, 60_000))
    heads = lowered(credit.token_statistics_from_hidden, *[(64, 8), (60_000, 8)] * 2)
    jax.clear_caches()
    assert ("64x60000xf32" in logits) == (form == "whole")
    assert ("stablehlo.while" in logits) == (form == "")
    assert "64x60000" not in heads
