"""JAX: the same state in a loop over vocabulary chunks, compiled once per shape, with a custom gradient."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from credit.backends import array_api
from credit.backends.array_api import postprocess
from credit.backends.jax import chunk_loop, sharded
from credit.backends.jax.linear_head import project, selected_log_probs_from_hidden, slice_entries
from credit.backends.protocol import Shard
from credit.backends.vocab import gradients, state, tiles
from credit.backends.vocab.sources import Logits, Source

__all__ = [
    "describe_path",
    "locate_shard",
    "log_probs_and_entropy",
    "postprocess",
    "selected_log_probs_from_hidden",
    "sharded_log_probs_and_entropy",
    "sharded_token_statistics",
    "token_statistics",
    "token_statistics_from_hidden",
]

Array = Any


@partial(jax.jit, static_argnames="also")
def token_statistics(
    policy_logits: Array,
    reference_logits: Array | None,
    token_ids: Array,
    temperature: Array | float,
    also: Sequence[str] = (),
) -> tuple[Array, ...]:
    """See `protocol.Backend`. On a TPU a Pallas kernel for two models, elsewhere a loop."""
    logits = tuple(side for side in (policy_logits, reference_logits) if side is not None)
    dtype = tiles.computing_dtype(*logits)
    logits = lax.stop_gradient(logits)
    arguments = logits, token_ids, temperature
    if len(logits) == 2 and dtype == jnp.float32 and jax.default_backend() == "tpu":
        from credit.backends.jax import pallas

        half = _half_inverse_temperature(temperature, token_ids, dtype)
        kernel = partial(pallas.token_statistics, logits[0], logits[1], token_ids, half, also)
        return lax.platform_dependent(tpu=kernel, default=partial(_fold_in_chunks, *arguments, dtype, also))
    return _fold_in_chunks(*arguments, dtype, also)


def _fold_in_chunks(
    logits: tuple[Array, ...],
    token_ids: Array,
    temperature: Array | float,
    dtype: Any,
    also: Sequence[str],
) -> Any:
    sides = [tiles.from_logits(side, dtype, slice_entries) for side in logits]
    size = logits[0].shape[-1]
    chunk = chunk_loop.chunk_for_logits(token_ids.size, size)
    return _fold_sides(sides, size, chunk, token_ids, temperature, dtype, also)


@partial(jax.jit, static_argnames=("also", "scale", "soft_cap", "chunk"))
def token_statistics_from_hidden(
    policy_hidden: Array,
    policy_head: Array,
    reference_hidden: Array | None,
    reference_head: Array | None,
    token_ids: Array,
    temperature: Array | float,
    also: Sequence[str] = (),
    *,
    policy_bias: Array | None = None,
    reference_bias: Array | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int | None = None,
) -> tuple[Array, ...]:
    """See `protocol.Backend`."""
    policy = policy_hidden, policy_head, policy_bias
    reference = reference_hidden, reference_head, reference_bias
    heads = lax.stop_gradient([side for side in (policy, reference) if side[0] is not None])
    dtype = tiles.computing_dtype(*(array for side in heads for array in side[:2]))
    source = partial(tiles.from_hidden, scale=scale, soft_cap=soft_cap, dtype=dtype)
    sides = [source(*side, take=slice_entries, project=project) for side in heads]
    chunk = chunk or chunk_loop.chunk_for_rows(token_ids.size)
    return _fold_sides(sides, policy_head.shape[0], chunk, token_ids, temperature, dtype, also)


@jax.jit
def log_probs_and_entropy(logits: Array, token_ids: Array, temperature: Array | float) -> tuple[Array, Array]:
    """See `protocol.Backend`."""
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
    policy, moment, _ = chunk_loop.fold_chunks(part, size, chunk_loop.chunk_for_logits(ids.size, size), half)
    outputs = state.log_prob(policy, half), state.entropy(policy, moment)
    return outputs, (logits, token_ids, half, policy.peak, jnp.log(policy.total), outputs[1])


def _backward(residuals: Any, grad_output: tuple[Array, Array]) -> tuple[Array, None, None]:
    logits, token_ids, half, peak, log_total, entropy = residuals
    grad_log_prob, grad_entropy = (grad[..., None] for grad in grad_output)
    x, saved = logits.astype(half.dtype), (peak, log_total, entropy[..., None])
    grads = grad_log_prob, -grad_log_prob, grad_entropy
    grad = gradients.grad_logits(x, token_ids[..., None], half, saved, *grads)
    return grad.astype(logits.dtype), None, None


_log_probs_and_entropy.defvjp(_forward, _backward)


def describe_path(logits: Array, also: Sequence[str] = ()) -> str:
    """See `protocol.Backend`."""
    on_tpu = tiles.computing_dtype(logits) == jnp.float32 and jax.default_backend() == "tpu"
    return "Pallas, XLA loop" if on_tpu else "XLA loop"


def locate_shard(columns: int, group: str, like: Array) -> Shard:
    """See `protocol.ShardedBackend`; the group is the name of a mesh axis, and this runs inside shard_map."""
    return sharded.locate_shard(columns, group)


def sharded_token_statistics(
    policy: Source,
    reference: Source | None,
    token_ids: Array,
    temperature: Array | float,
    shard: Shard,
    size: int,
    chunk: int | None,
    also: Sequence[str] = (),
) -> tuple[Array, ...]:
    """See `protocol.ShardedBackend`."""
    sources = [_stop_gradient(side) for side in (policy, reference) if side is not None]
    dtype = tiles.computing_dtype(*(array for source in sources for array in source.arrays))
    half = _half_inverse_temperature(temperature, token_ids, dtype)
    return sharded.token_statistics(sources, token_ids, half, shard, size, chunk, also)


def sharded_log_probs_and_entropy(
    logits: Array, token_ids: Array, temperature: Array | float, shard: Shard, size: int
) -> tuple[Array, Array]:
    """See `protocol.ShardedBackend`."""
    half = _half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(logits))
    return sharded.log_probs_and_entropy(logits, token_ids, half, shard, size)


def _stop_gradient(source: Source) -> Source:
    if isinstance(source, Logits):
        return Logits(lax.stop_gradient(source.logits))
    hidden, head, bias = lax.stop_gradient((source.hidden, source.head, source.bias))
    return source._replace(hidden=hidden, head=head, bias=bias)


def _fold_sides(
    sides: Sequence[tiles.Tile],
    size: int,
    chunk: int,
    token_ids: Array,
    temperature: Array | float,
    dtype: Any,
    also: Sequence[str],
) -> tuple[Array, ...]:
    ids, half = token_ids[..., None], _half_inverse_temperature(temperature, token_ids, dtype)[..., None]

    def part(start: Any, width: int) -> state.State:
        return state.sum_states([side(start, width) for side in sides], ids - start, half, also)

    final = chunk_loop.fold_chunks(part, size, chunk, half)
    return array_api.read_statistics(final, half, also)


def _half_inverse_temperature(temperature: Array | float, token_ids: Array, dtype: Any) -> Array:
    return tiles.half_inverse_temperature(jnp.asarray(temperature, dtype), token_ids, dtype)
