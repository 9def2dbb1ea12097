"""Checks that need a JAX of their own settings; test_statistics_jax.py starts each in a process."""

import jax
import jax.numpy as jnp
import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle
from jax.sharding import NamedSharding, PartitionSpec

import credit


def draw():
    rng = np.random.default_rng(1)
    x, y = logit_cases.masked_differently(rng)
    return x, y, rng.integers(x.shape[-1], size=6)


def float64():
    """All-float64 logits are computed in float64, whatever the type of the ids."""
    x, y, ids = draw()
    x, y = x.astype(np.float64), y.astype(np.float64)
    log_probs, _, entropy, deviation = oracle.statistics(x, y, ids)
    of_log_prob, of_entropy = oracle.gradients(x, ids)
    for kind in (jnp.int32, jnp.uint64):
        given = jnp.asarray(x), jnp.asarray(y), jnp.asarray(ids).astype(kind)
        stats = jax.jit(credit.token_statistics)(*given)
        assert stats.deviation.dtype == jnp.float64
        np.testing.assert_allclose(stats.log_probs, log_probs, rtol=1e-12)
        np.testing.assert_allclose(stats.normalized_entropy * np.log(x.shape[-1]), entropy, rtol=1e-12)
        np.testing.assert_allclose(stats.deviation, deviation, rtol=1e-11)
        gradient = jax.grad(lambda x, ids=given[2]: credit.selected_log_probs(x, ids).sum())(given[0])
        np.testing.assert_allclose(gradient, of_log_prob, rtol=1e-10, atol=1e-14)
        gradient = jax.grad(lambda x, ids=given[2]: credit.log_probs_and_entropy(x, ids)[1].sum())(given[0])
        np.testing.assert_allclose(gradient, of_entropy, rtol=1e-9, atol=1e-13)
    mixed = credit.token_statistics(jnp.asarray(x), jnp.asarray(y, jnp.float32), jnp.asarray(ids))
    assert mixed.deviation.dtype == jnp.float32


def strict():
    """What runs without promotion and on several devices."""
    ranks()
    devices()


def ranks():
    """No broadcast between arrays of different rank, in values, gradients and heads."""
    x, y, ids = (jnp.asarray(array) for array in draw())
    credit.token_statistics(x, y, ids, temperature=jnp.ones(6), mask=ids > 3)
    jax.grad(lambda x: sum(field.sum() for field in credit.log_probs_and_entropy(x, ids)))(x)
    head = jnp.ones((30, 9))
    for kind in (jnp.float32, jnp.bfloat16):
        arrays = jnp.ones((6, 9), kind), head.astype(kind), jnp.ones((6, 9), kind), head.astype(kind)
        bias = jnp.ones(30, kind)
        stats = credit.token_statistics_from_hidden(
            *arrays, ids % 30, policy_bias=bias, soft_cap=3.0, chunk=7
        )
        assert stats.deviation.dtype == jnp.float32
        np.testing.assert_array_equal(stats.deviation, 0.0)


def devices():
    """Rows spread over devices, each array in its own way, stay spread; what does not fit is refused."""
    x, y, ids = draw()
    mesh = jax.make_mesh((2,), ("rows",))

    def spread(array):
        axes = ("rows",) + (None,) * (array.ndim - 1)
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes)))

    for function in (credit.token_statistics, jax.jit(credit.token_statistics)):
        stats = function(spread(x), spread(y), spread(ids))
        assert len(stats.deviation.sharding.device_set) == 2
        used = oracle.errors(stats, oracle.statistics(x, y, ids), x.shape[-1])
        assert max(used.values()) <= 1.0, used
    first, second = jax.devices()
    with pytest.raises(ValueError, match="incompatible devices"):
        credit.selected_log_probs(jax.device_put(x, first), jax.device_put(ids, second))
