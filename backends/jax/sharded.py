# mypy: disable-error-code="no-untyped-call"
"""A vocabulary sharded over a mesh axis, inside shard_map: 8 numbers per token cross.

Each statistic that is asked for beside the four adds at most one number.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from credit.backends import array_api
from credit.backends.jax import chunk_loop
from credit.backends.jax.linear_head import project, slice_entries
from credit.backends.protocol import Shard
from credit.backends.vocab import gradients, state, tiles
from credit.backends.vocab.sources import Logits, Source

Array = Any


def locate_shard(columns: int, axis: str) -> Shard:
    """Every device along the axis holds as many columns."""
    return Shard(axis, lax.axis_index(axis) * columns, columns, columns * lax.axis_size(axis))


def token_statistics(
    sources: Sequence[Source],
    token_ids: Array,
    half: Array,
    shard: Shard,
    size: int,
    chunk: int | None,
    also: Sequence[str],
) -> tuple[Array, ...]:
    """log p, log q, H, d and those of `also` [...], the same on every device; half is 1 / 2T [...]."""
    given = (tiles.from_source(source, half.dtype, slice_entries, project) for source in sources)
    sides = [_mask_padding(side, shard.start, _padded_from(shard, size)) for side in given]
    ids, half = token_ids[..., None] - shard.start, half[..., None]

    def part(start: Any, width: int) -> state.State:
        return state.sum_states([side(start, width) for side in sides], ids - start, half, also)

    if chunk is None and isinstance(sources[0], Logits):
        chunk = chunk_loop.chunk_for_logits(ids.size, shard.columns)
    local = chunk_loop.fold_chunks(part, shard.columns, chunk or chunk_loop.chunk_for_rows(ids.size), half)
    every = lax.all_gather(jnp.stack(state.pack(local)), shard.group)
    parts = [state.unpack(every[k], also) for k in range(every.shape[0])]
    return array_api.read_statistics(reduce(lambda a, b: state.merge(a, b, half), parts), half, also)


def log_probs_and_entropy(
    logits: Array, token_ids: Array, half: Array, shard: Shard, size: int
) -> tuple[Array, Array]:
    """log p and H [...] of the whole vocabulary, the same on every device.

    Each device's part is differentiable by a rule of its own, and JAX differentiates the sums over devices:

        log p(a) = x_a / T - ln sum_k e^{r_k}        H = sum_k P_k (H_k - ln P_k)

    r_k is the log-mass of part k, P_k = e^{r_k} / sum_j e^{r_j} its share, H_k the entropy inside it.
    """
    axis, ids = shard.group, token_ids - shard.start
    selected, mass, entropy = _local_softmax(_padded_from(shard, size), axis, logits, ids, half, shard.start)
    log_total = jnp.log(lax.psum(jnp.exp(mass), axis))
    log_prob = lax.psum(selected, axis) - log_total
    share = jnp.exp(mass - log_total)
    some = share > 0.0
    inside = entropy - jnp.where(some, mass, log_total) + log_total
    whole = lax.psum(jnp.where(some, share * jnp.where(some, inside, 0.0), 0.0), axis)
    whole = jnp.where(jnp.isfinite(log_total), whole, jnp.nan)
    return _replace_value(log_prob, jnp.minimum(log_prob, 0.0)), _replace_value(
        whole, jnp.maximum(whole, 0.0)
    )


def _padded_from(shard: Shard, size: int) -> int | None:
    """The id of the first column of padding, or None without any."""
    return None if size == shard.total else size


def _replace_value(value: Array, to: Array) -> Array:
    """`to`, with the gradient of `value`, from which it differs by rounding alone."""
    return value + lax.stop_gradient(jnp.where(to == value, 0.0, to - value))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _local_softmax(
    padded_from: int | None, axis: str, logits: Array, ids: Array, half: Array, first: Array
) -> tuple[Array, Array, Array]:
    """(x_a - m) / T, or 0 where id a is not here, r_k - m / T and H_k [...]; m the largest of all."""
    return _forward(padded_from, axis, logits, ids, half, first)[0]


def _forward(padded_from: int | None, axis: str, logits: Array, ids: Array, half: Array, first: Array) -> Any:
    tile = _mask_padding(tiles.from_logits(logits, half.dtype, slice_entries), first, padded_from)
    local, halves, size = ids[..., None], half[..., None], logits.shape[-1]

    def part(start: Any, width: int) -> state.Single:
        return state.single_state(tile(start, width), local - start, halves)

    chunk = chunk_loop.chunk_for_logits(ids.size, size)
    policy, moment, _ = chunk_loop.fold_chunks(part, size, chunk, halves)
    peak, log_total = policy.peak, jnp.log(policy.total)
    top = lax.pmax(peak, axis)
    here = (local >= 0) & (local < size)
    selected = jnp.where(here, 2.0 * halves * (policy.selected - top), 0.0)[..., 0]
    mass = (2.0 * halves * (peak - top) + log_total)[..., 0]
    some = policy.total > 0.0  # a part of padding or -inf alone has no mass, and no entropy
    inside = jnp.where(some, log_total - 2.0 * moment / jnp.where(some, policy.total, 1.0), 0.0)
    residuals = peak, jnp.where(some, log_total, 0.0), inside
    return (selected, mass, inside[..., 0]), (logits, ids, half, first, residuals)


def _backward(padded_from: int | None, axis: str, saved: Any, grad_output: Any) -> Any:
    logits, ids, half, first, residuals = saved
    x = _mask_padding(lambda *_: logits, first, padded_from)(0, logits.shape[-1]).astype(half.dtype)
    grads = (grad[..., None] for grad in grad_output)
    grad = gradients.grad_logits(x, ids[..., None], half[..., None], residuals, *grads)
    return grad.astype(logits.dtype), None, None, None


_local_softmax.defvjp(_forward, _backward)


def _mask_padding(tile: tiles.Tile, first: Array, padded_from: int | None) -> tiles.Tile:
    """Tiles of this device's columns, of which id `first` is the first, with -inf for padding."""

    def unpadded(start: Any, width: int) -> Array:
        logits = tile(start, width)
        if padded_from is None:
            return logits
        column = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) + (first + start)
        return jnp.where(column < padded_from, logits, -jnp.inf)

    return unpadded
