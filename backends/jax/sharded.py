"""A vocabulary sharded over a mesh axis, inside shard_map: 8 numbers per token cross."""

from functools import reduce
from typing import Any

import jax.numpy as jnp
from jax import lax

from credit.backends import array_api, state, tiles

Array = Any


def statistics(
    policy: tiles.Tile,
    reference: tiles.Tile,
    local: int,
    vocab_size: int | None,
    fold: Any,
    token_ids: Array,
    half: Array,
    axis: str,
) -> tuple[Array, Array, Array, Array]:
    """log p, log q, H and d [...], the same on every device; each holds `local` columns."""
    first = lax.axis_index(axis) * local
    ids, half = token_ids[..., None] - first, half[..., None]

    def unpadded(tile: tiles.Tile, start: Any, width: int) -> Array:
        logits = tile(start, width)
        if vocab_size is None:
            return logits
        column = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) + (first + start)
        return jnp.where(column < vocab_size, logits, -jnp.inf)

    def part(start: Any, width: int) -> state.Pair:
        return state.pair(
            unpadded(policy, start, width), unpadded(reference, start, width), ids - start, half
        )

    mine = fold(part, state.merge_pair, local, token_ids.size, half)
    fields = jnp.stack([*mine.policy, mine.moment, *mine.reference, mine.deviation])
    every = lax.all_gather(fields, axis)
    parts = [
        state.Pair(state.Mass(*one[:3]), one[3], state.Mass(*one[4:7]), one[7])
        for one in (every[k] for k in range(every.shape[0]))
    ]
    return array_api.read_pair(reduce(lambda a, b: state.merge_pair(a, b, half), parts), half)
