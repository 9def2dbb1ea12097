# mypy: disable-error-code="no-untyped-call"
"""A vocabulary sharded over a mesh axis, inside shard_map: 8 numbers per token cross."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from credit.backends import array_api
from credit.backends.jax import chunk_loop, gradient
from credit.backends.jax.linear_head import slice_entries
from credit.backends.vocab import state, tiles

Array = Any


def statistics(
    policy: tiles.Tile,
    reference: tiles.Tile,
    local: int,
    vocab_size: int | None,
    chunk: int,
    token_ids: Array,
    half: Array,
    axis: str,
) -> tuple[Array, Array, Array, Array]:
    """log p, log q, H and d [...], the same on every device; each holds `local` columns."""
    first = lax.axis_index(axis) * local
    ids, half = token_ids[..., None] - first, half[..., None]
    x, y = (_mask_padding(tile, first, vocab_size) for tile in (policy, reference))

    def part(start: Any, width: int) -> state.Pair:
        return state.pair_state(x(start, width), y(start, width), ids - start, half)

    mine = chunk_loop.fold_chunks(part, state.merge_pair, local, chunk, half)
    fields = jnp.stack([*mine.policy, mine.moment, *mine.reference, mine.deviation])
    every = lax.all_gather(fields, axis)
    parts = [
        state.Pair(state.Mass(*one[:3]), one[3], state.Mass(*one[4:7]), one[7])
        for one in (every[k] for k in range(every.shape[0]))
    ]
    return array_api.read_statistics(reduce(lambda a, b: state.merge_pair(a, b, half), parts), half)


def log_probs_and_entropy(
    logits: Array, token_ids: Array, half: Array, vocab_size: int | None, axis: str
) -> tuple[Array, Array]:
    """log p and H [...] of the whole vocabulary, the same on every device.

    Each device's part is differentiable by a rule of its own, and JAX differentiates the sums over devices:

        log p(a) = x_a / T - ln sum_k e^{r_k}        H = sum_k P_k (H_k - ln P_k)

    r_k is the log-mass of part k, P_k = e^{r_k} / sum_j e^{r_j} its share, H_k the entropy inside it.
    """
    first = lax.axis_index(axis) * logits.shape[-1]
    selected, mass, entropy = _local_softmax(vocab_size, axis, logits, token_ids - first, half, first)
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


def _replace_value(value: Array, to: Array) -> Array:
    """`to`, with the gradient of `value`, from which only rounding keeps it."""
    return value + lax.stop_gradient(jnp.where(to == value, 0.0, to - value))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _local_softmax(
    vocab_size: int | None, axis: str, logits: Array, ids: Array, half: Array, first: Array
) -> tuple[Array, Array, Array]:
    """(x_a - m) / T, or 0 where id a is not here, r_k - m / T and H_k [...]; m the largest of all."""
    return _forward(vocab_size, axis, logits, ids, half, first)[0]


def _forward(vocab_size: int | None, axis: str, logits: Array, ids: Array, half: Array, first: Array) -> Any:
    tile = _mask_padding(tiles.from_logits(logits, half.dtype, slice_entries), first, vocab_size)
    local, halves, size = ids[..., None], half[..., None], logits.shape[-1]

    def part(start: Any, width: int) -> state.Single:
        return state.single_state(tile(start, width), local - start, halves)

    chunk = chunk_loop.chunk_for_logits(ids.size, size)
    policy, moment = chunk_loop.fold_chunks(part, state.merge_single, size, chunk, halves)
    peak, log_total = policy.peak, jnp.log(policy.total)
    top = lax.pmax(peak, axis)
    here = (local >= 0) & (local < size)
    selected = jnp.where(here, 2.0 * halves * (policy.selected - top), 0.0)[..., 0]
    mass = (2.0 * halves * (peak - top) + log_total)[..., 0]
    some = policy.total > 0.0  # a part of padding or -inf alone has no mass, and no entropy
    inside = jnp.where(some, log_total - 2.0 * moment / jnp.where(some, policy.total, 1.0), 0.0)
    saved = peak, jnp.where(some, log_total, 0.0), inside
    return (selected, mass, inside[..., 0]), (logits, ids, half, first, saved)


def _backward(vocab_size: int | None, axis: str, residuals: Any, given: Any) -> Any:
    logits, ids, half, first, saved = residuals
    of_selected, of_mass, of_entropy = (each[..., None] for each in given)
    x = _mask_padding(lambda *_: logits, first, vocab_size)(0, logits.shape[-1])
    slope = gradient.grad_logits(x, ids, half[..., None], saved, of_selected, of_mass, of_entropy)
    return slope, None, None, None


_local_softmax.defvjp(_forward, _backward)


def _mask_padding(tile: tiles.Tile, first: Array, vocab_size: int | None) -> tiles.Tile:
    """Tiles of this device's columns, -inf from id `vocab_size` on."""

    def unpadded(start: Any, width: int) -> Array:
        logits = tile(start, width)
        if vocab_size is None:
            return logits
        column = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) + (first + start)
        return jnp.where(column < vocab_size, logits, -jnp.inf)

    return unpadded
