"""What only JAX has: tracing, vmap, float64 as a switch, strict promotion, arrays on several devices."""

import os
import subprocess
import sys

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle

import credit

jax = pytest.importorskip("jax")
jnp = jax.numpy


@pytest.fixture
def drawn():
    """Logits x, y [6, V] over two chunks and ids [6]."""
    rng = np.random.default_rng(1)
    x, y = logit_cases.ordinary(rng)
    return jnp.asarray(x), jnp.asarray(y), jnp.asarray(rng.integers(x.shape[-1], size=6).astype(np.int32))


@pytest.mark.parametrize("bad", [-1, logit_cases.SIZE, 2**31 - 1])
def test_a_traced_id_outside_the_vocabulary_is_nan(drawn, bad):
    x, y, ids = drawn
    ids = ids.at[2].set(bad)
    stats = jax.jit(credit.token_statistics)(x, y, ids)
    for field in stats[:2]:
        np.testing.assert_array_equal(np.isnan(field), np.arange(6) == 2)
    assert not np.isnan(stats.normalized_entropy).any()
    assert not np.isnan(stats.deviation).any()


def test_a_traced_id_outside_the_vocabulary_has_no_gradient(drawn):
    x, _, ids = drawn
    ids = ids.at[2].set(-100)
    gradient = jax.jit(jax.grad(lambda x, ids: jnp.nansum(credit.selected_log_probs(x, ids))))(x, ids)
    exact, _ = oracle.gradients(x, ids)
    np.testing.assert_array_equal(gradient[2], 0.0)
    np.testing.assert_allclose(np.delete(gradient, 2, 0), np.delete(exact, 2, 0), rtol=3e-5, atol=2e-6)


def test_vmap_and_grad(drawn):
    x, y, ids = drawn
    of_log_prob, _ = oracle.gradients(x, ids)
    per_token = jax.jit(jax.vmap(jax.grad(credit.selected_log_probs)))(x, ids)
    np.testing.assert_allclose(per_token, of_log_prob, rtol=3e-5, atol=2e-6)
    stats = jax.vmap(credit.token_statistics)(x, y, ids)
    expected = oracle.statistics(x, y, ids)
    assert max(oracle.errors(stats, expected, x.shape[-1]).values()) <= 1.0


@pytest.mark.parametrize("function", [credit.token_statistics, credit.log_probs_and_entropy])
def test_temporaries_are_a_few_chunks(function):
    """One model's logits are 117 MB; a program that does not loop holds several times as much."""
    logits, ids = jax.ShapeDtypeStruct((192, 151_936), jnp.float32), jax.ShapeDtypeStruct((192,), jnp.int32)
    models = 2 if function is credit.token_statistics else 1
    program = jax.jit(function).lower(*[logits] * models, ids).compile()
    assert program.memory_analysis().temp_size_in_bytes < 64e6


def test_no_gradient_flows_through_token_statistics(drawn):
    x, y, ids = drawn

    def total(x, temperature):
        return sum(field.sum() for field in credit.token_statistics(x, y, ids, temperature=temperature))

    for gradient in jax.grad(total, argnums=(0, 1))(x, jnp.ones(6)):
        np.testing.assert_array_equal(gradient, 0.0)


def test_one_compilation_serves_every_temperature_and_content(drawn):
    x, y, ids = drawn
    traces = []

    def function(x, y, ids, temperature):
        traces.append(1)
        return credit.token_statistics(x, y, ids, temperature=temperature)

    compiled = jax.jit(function)
    for temperature in (0.5, 1.0, 2.0):
        compiled(x, y, ids, temperature)
        x = x + 1.0
    assert traces == [1]


def test_ids_that_a_traced_function_closes_over_are_checked(drawn):
    x, y, ids = drawn
    expected = credit.token_statistics(x, y, ids)
    for field, other in zip(jax.jit(lambda x: credit.token_statistics(x, y, ids))(x), expected, strict=True):
        np.testing.assert_allclose(field, other, rtol=1e-6, atol=1e-6)
    bad = ids.at[2].set(-1)
    with pytest.raises(ValueError, match=r"token_ids\[2\] is -1"):
        jax.jit(lambda x: credit.token_statistics(x, y, bad))(x)


@pytest.mark.parametrize("program", ["float64", "strict"])
def test_in_a_process_of_its_own(program):
    """Settings that JAX takes once, at its start."""
    environment = os.environ | {
        "JAX_ENABLE_X64": str(int(program == "float64")),
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-W", "error", "-c", f"import jax_programs; jax_programs.{program}()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
