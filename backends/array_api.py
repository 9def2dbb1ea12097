"""The reference: every function against the array API alone, for any library and for bug reports."""

from contextlib import nullcontext
from functools import partial
from math import log
from typing import Any

import numpy as np
from array_api_compat import is_torch_array

from credit.backends.arrays import is_in_range, namespace
from credit.backends.vocab import state, tiles

Array = Any

CHUNK = 16_384  # vocabulary entries per fold; below 512 sequential folds lose accuracy
TILE = 2**18  # entries of a tile: large enough for threads, small enough for a cache


def token_statistics(
    policy_logits: Array,
    reference_logits: Array,
    token_ids: Array,
    temperature: Array | float,
    *,
    tile: int = TILE,
) -> tuple[Array, Array, Array, Array]:
    """log p, log q, H(p) in nats and d for logits [..., V] and ids [...]; see `credit.token_statistics`.

    Here as in every backend, ids are of the library's index type and temperatures are checked.
    """
    dtype = tiles.computing_dtype(policy_logits, reference_logits)
    size = policy_logits.shape[-1]
    chunk = min(size, CHUNK)

    def rows(x: Array, y: Array, ids: Array, half: Array) -> tuple[Array, ...]:
        sources = tiles.from_logits(x, dtype), tiles.from_logits(y, dtype)
        return fold_pair(*sources, size, chunk, ids[..., None], half[..., None])

    arrays = (policy_logits, reference_logits, token_ids)
    half = tiles.half_inverse_temperature(temperature, token_ids, dtype)
    return _map_rows_quietly(rows, (*arrays, half), token_ids.ndim, max(1, tile // chunk))


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
    tile: int = 16 * TILE,
    project: Any = tiles.project,
    pair: Any = state.pair_state,
) -> tuple[Array, Array, Array, Array]:
    """As `token_statistics`, from hidden states [..., D] and heads [V, D], whose tiles `pair` sums up."""
    dtype = tiles.computing_dtype(policy_hidden, policy_head, reference_hidden, reference_head)
    size = policy_head.shape[0]
    chunk = min(size, chunk or CHUNK)
    source = partial(tiles.from_hidden, scale=scale, soft_cap=soft_cap, dtype=dtype, project=project)

    def rows(x: Array, y: Array, ids: Array, half: Array) -> tuple[Array, ...]:
        policy = source(x, policy_head, policy_bias)
        reference = source(y, reference_head, reference_bias)
        return fold_pair(policy, reference, size, chunk, ids[..., None], half[..., None], pair)

    arrays = (policy_hidden, reference_hidden, token_ids)
    half = tiles.half_inverse_temperature(temperature, token_ids, dtype)
    return _map_rows_quietly(rows, (*arrays, half), token_ids.ndim, max(1, tile // chunk))


def postprocess(statistics: Any, ids: Array, chosen: Array | None, size: int) -> tuple[Array, ...]:
    """Entropy by ln V and at most 1, NaN for log-probs of ids outside the vocabulary, 0 where not chosen."""
    log_p, log_q, entropy, deviation = statistics
    xp = namespace(log_p)
    known = is_in_range(ids, size)
    entropy = entropy / log(size) if size > 1 else entropy * 0.0
    entropy = xp.where(entropy > 1.0, 1.0, entropy)
    fields = (xp.where(known, log_p, float("nan")), xp.where(known, log_q, float("nan")), entropy, deviation)
    return fields if chosen is None else tuple(xp.where(chosen, field, 0.0) for field in fields)


def log_probs_and_entropy(
    logits: Array, token_ids: Array, temperature: Array | float, *, tile: int = TILE
) -> tuple[Array, Array]:
    """log p and H(p) in nats for logits [..., V] and ids [...]; differentiable where the library is."""
    dtype = tiles.computing_dtype(logits)
    size = logits.shape[-1]
    chunk = min(size, CHUNK)

    def rows(x: Array, ids: Array, half: Array) -> tuple[Array, ...]:
        final = fold_single(x, dtype, chunk, ids[..., None], half[..., None])
        return (
            state.log_prob(final.policy, half[..., None]),
            state.entropy(final.policy, final.moment),
        )

    half = tiles.half_inverse_temperature(temperature, token_ids, dtype)
    return _map_rows_quietly(rows, (logits, token_ids, half), token_ids.ndim, max(1, tile // chunk))


def fold_pair(
    policy: tiles.Tile,
    reference: tiles.Tile,
    size: int,
    chunk: int,
    ids: Array,
    half: Array,
    pair: Any = state.pair_state,
) -> tuple[Array, Array, Array, Array]:
    """Folds two models' tiles and reads the four statistics off the state."""

    def part(start: int, width: int) -> state.Pair:
        return pair(policy(start, width), reference(start, width), ids - start, half)

    return read_statistics(state.fold_chunks(part, state.merge_pair, size, chunk, half), half)


def read_statistics(final: state.Pair, half: Array) -> tuple[Array, Array, Array, Array]:
    """log p, log q, H(p), d of the whole vocabulary's state."""
    return (
        state.log_prob(final.policy, half),
        state.log_prob(final.reference, half),
        state.entropy(final.policy, final.moment),
        state.deviation(final),
    )


def fold_single(logits: Array, dtype: Any, chunk: int, ids: Array, half: Array) -> state.Single:
    """Folds one model's logits."""
    tile = tiles.from_logits(logits, dtype)

    def part(start: int, width: int) -> state.Single:
        return state.single_state(tile(start, width), ids - start, half)

    return state.fold_chunks(part, state.merge_single, logits.shape[-1], chunk, half)


def _map_rows_quietly(rows: Any, arrays: tuple[Array, ...], ndim: int, limit: int) -> Any:
    # Infinities are data here, and NaN is the answer to bad rows. torch.compile cannot trace errstate.
    quiet = nullcontext() if is_torch_array(arrays[0]) else np.errstate(all="ignore")
    with quiet:
        return tiles.map_rows(rows, arrays, ndim, limit)


def selected_log_probs_from_hidden(
    hidden: Array,
    head: Array,
    token_ids: Array,
    temperature: Array | float,
    *,
    tile: int = 16 * TILE,
    **settings: Any,
) -> Array:
    """log p [...] from hidden states [..., D] and a head [V, D]; settings as below."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(hidden, head))
    return log_prob_and_residuals_from_hidden(hidden, head, token_ids, half, tile=tile, **settings)[0]


def log_prob_and_residuals_from_hidden(
    hidden: Array,
    head: Array,
    token_ids: Array,
    half: Array,
    *,
    bias: Array | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int | None = None,
    tile: int = 16 * TILE,
    project: Any = tiles.project,
    single: Any = state.single_state,
) -> tuple[Array, Array, Array]:
    """log p, and for its gradient the peak and ln A, all [...]."""
    size = head.shape[0]
    width = min(size, chunk or CHUNK)

    def rows(x: Array, ids: Array, half: Array) -> tuple[Array, ...]:
        logits = tiles.from_hidden(x, head, bias, scale, soft_cap, half.dtype, project=project)
        ids, half = ids[..., None], half[..., None]

        def part(start: int, width: int) -> state.Single:
            return single(logits(start, width), ids - start, half)

        policy, _ = state.fold_chunks(part, state.merge_single, size, width, half)
        xp = namespace(policy.peak)
        return state.log_prob(policy, half), policy.peak[..., 0], xp.log(policy.total)[..., 0]

    return _map_rows_quietly(rows, (hidden, token_ids, half), token_ids.ndim, max(1, tile // width))
