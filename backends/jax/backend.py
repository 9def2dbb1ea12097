"""JAX: the same state in a loop over vocabulary chunks, compiled once per shape, with a custom gradient."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from credit.backends import array_api
from credit.backends.jax import chunk_loop, gradient, sharded
from credit.backends.jax.linear_head import project, selected_log_probs_from_hidden, slice_entries
from credit.backends.vocab import state, tiles

__all__ = [
    "log_probs_and_entropy",
    "selected_log_probs_from_hidden",
    "sharded_log_probs_and_entropy",
    "sharded_token_statistics",
    "token_statistics",
    "token_statistics_from_hidden",
]

Array = Any


@jax.jit
def token_statistics(
    policy_logits: Array, reference_logits: Array, token_ids: Array, temperature: Array | float
) -> tuple[Array, Array, Array, Array]:
    """See `array_api.token_statistics`; no gradient. On a TPU a Pallas kernel, elsewhere a loop."""
    dtype = tiles.computing_dtype(policy_logits, reference_logits)
    arguments = lax.stop_gradient((policy_logits, reference_logits)), token_ids, temperature
    if dtype == jnp.float32 and jax.default_backend() == "tpu":
        from credit.backends.jax import pallas

        half = _half_inverse_temperature(temperature, token_ids, dtype)
        kernel = partial(pallas.token_statistics, *arguments[0], token_ids, half)
        return lax.platform_dependent(tpu=kernel, default=partial(_fold_in_chunks, *arguments, dtype))
    return _fold_in_chunks(*arguments, dtype)


def _fold_in_chunks(
    logits: tuple[Array, Array], token_ids: Array, temperature: Array | float, dtype: Any
) -> Any:
    policy_logits, reference_logits = logits
    policy = tiles.from_logits(lax.stop_gradient(policy_logits), dtype, slice_entries)
    reference = tiles.from_logits(lax.stop_gradient(reference_logits), dtype, slice_entries)
    size = policy_logits.shape[-1]
    chunk = chunk_loop.chunk_for_logits(token_ids.size, size)
    return _fold_pair(policy, reference, size, chunk, token_ids, temperature, dtype)


@partial(jax.jit, static_argnames=("scale", "soft_cap", "chunk"))
def token_statistics_from_hidden(
    policy_hidden: Array,
    policy_head: Array,
    reference_hidden: Array,
    reference_head: Array,
    token_ids: Array,
    temperature: Array | float,
    *,
    policy_bias: Array | None = None,
    reference_bias: Array | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int | None = None,
) -> tuple[Array, Array, Array, Array]:
    """See `array_api.token_statistics_from_hidden`; no gradient."""
    policy = policy_hidden, policy_head, policy_bias
    reference = reference_hidden, reference_head, reference_bias
    policy, reference = lax.stop_gradient((policy, reference))
    dtype = tiles.computing_dtype(*policy[:2], *reference[:2])
    source = partial(tiles.from_hidden, scale=scale, soft_cap=soft_cap, dtype=dtype)
    sides = [source(*side, take=slice_entries, project=project) for side in (policy, reference)]
    chunk = chunk or chunk_loop.chunk_for_rows(token_ids.size)
    return _fold_pair(sides[0], sides[1], policy_head.shape[0], chunk, token_ids, temperature, dtype)


@jax.jit
def log_probs_and_entropy(logits: Array, token_ids: Array, temperature: Array | float) -> tuple[Array, Array]:
    """See `array_api.log_probs_and_entropy`; differentiable in the logits."""
    half = _half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(logits))
    return _log_probs_and_entropy(logits, token_ids, half)


@jax.custom_vjp
def _log_probs_and_entropy(logits: Array, token_ids: Array, half: Array) -> tuple[Array, Array]:
    return _forward(logits, token_ids, half)[0]


def _forward(logits: Array, token_ids: Array, half: Array) -> Any:
    tile = tiles.from_logits(logits, half.dtype, slice_entries)
    ids, half = token_ids[..., None], half[..., None]

    def part(start: Any, width: int) -> state.Single:
        return state.single_state(tile(start, width), ids - start, half)

    size = logits.shape[-1]
    policy, moment = chunk_loop.fold_chunks(
        part, state.merge_single, size, chunk_loop.chunk_for_logits(ids.size, size), half
    )
    outputs = state.log_prob(policy, half), state.entropy(policy, moment)
    return outputs, (logits, token_ids, half, policy.peak, jnp.log(policy.total), outputs[1])


def _backward(residuals: Any, gradients: tuple[Array, Array]) -> tuple[Array, None, None]:
    logits, token_ids, half, peak, log_total, entropy = residuals
    of_log_prob, of_entropy = (g[..., None] for g in gradients)
    saved = peak, log_total, entropy[..., None]
    slope = gradient.grad_logits(logits, token_ids, half, saved, of_log_prob, -of_log_prob, of_entropy)
    return slope, None, None


_log_probs_and_entropy.defvjp(_forward, _backward)


def sharded_token_statistics(
    policy: Any,
    reference: Any,
    ids: Array,
    temperature: Array | float,
    vocab_size: int | None,
    axis: str,
    chunk: int | None,
    logits: Any,
) -> tuple[tuple[Array, Array, Array, Array], int]:
    """As of torch, inside shard_map; every device holds as many columns."""
    local = policy[1].shape[0] if len(policy) > 1 else policy[0].shape[-1]
    policy, reference = lax.stop_gradient((policy, reference))
    dtype = tiles.computing_dtype(*policy[:2], *reference[:2])
    from_hidden: Any = tiles.from_hidden
    x, y = [
        from_hidden(*side, dtype=dtype, take=slice_entries, project=project, **logits)
        if len(side) > 1
        else tiles.from_logits(side[0], dtype, slice_entries)
        for side in (policy, reference)
    ]

    if chunk is None:
        chunk = (
            chunk_loop.chunk_for_rows(ids.size)
            if len(policy) > 1
            else chunk_loop.chunk_for_logits(ids.size, local)
        )
    half = _half_inverse_temperature(temperature, ids, dtype)
    statistics = sharded.statistics(x, y, local, vocab_size, chunk, ids, half, axis)
    return statistics, local * lax.axis_size(axis)


def sharded_log_probs_and_entropy(
    logits: Array, ids: Array, temperature: Array | float, vocab_size: int | None, axis: str
) -> tuple[Array, Array, int]:
    """As of torch, inside shard_map; differentiable in this device's logits."""
    half = _half_inverse_temperature(temperature, ids, tiles.computing_dtype(logits))
    log_probs, entropy = sharded.log_probs_and_entropy(logits, ids, half, vocab_size, axis)
    return log_probs, entropy, logits.shape[-1] * lax.axis_size(axis)


def _fold_pair(
    policy: tiles.Tile,
    reference: tiles.Tile,
    size: int,
    chunk: int,
    token_ids: Array,
    temperature: Array | float,
    dtype: Any,
) -> tuple[Array, Array, Array, Array]:
    ids, half = token_ids[..., None], _half_inverse_temperature(temperature, token_ids, dtype)[..., None]

    def part(start: Any, width: int) -> state.Pair:
        return state.pair_state(policy(start, width), reference(start, width), ids - start, half)

    final = chunk_loop.fold_chunks(part, state.merge_pair, size, chunk, half)
    return array_api.read_statistics(final, half)


def _half_inverse_temperature(temperature: Array | float, token_ids: Array, dtype: Any) -> Array:
    return tiles.half_inverse_temperature(jnp.asarray(temperature, dtype), token_ids, dtype)
