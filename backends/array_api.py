"""The reference: every function by the array API standard alone, for any library and for bug reports."""

from collections.abc import Sequence
from contextlib import nullcontext
from math import log
from typing import Any

import numpy as np
from array_api_compat import is_torch_array

from credit.backends import limits
from credit.backends.arrays import is_in_range, namespace
from credit.backends.vocab import by_name, loop, state, tiles
from credit.backends.vocab.sources import LinearHead

Array = Any


def token_statistics(
    policy_logits: Array,
    reference_logits: Array | None,
    token_ids: Array,
    temperature: Array | float,
    also: Sequence[str] = (),
    *,
    tile: int | None = None,
) -> tuple[Array, ...]:
    """See `protocol.Backend`; `tile` is how many entries of all rows are computed at a time."""
    logits = tuple(side for side in (policy_logits, reference_logits) if side is not None)
    dtype = tiles.computing_dtype(*logits)
    size = policy_logits.shape[-1]
    chunk = min(size, limits.REFERENCE_CHUNK_ENTRIES)
    tile = tile or limits.REFERENCE_TILE_ENTRIES

    def rows(ids: Array, half: Array, *logits: Array) -> tuple[Array, ...]:
        sides = [tiles.from_logits(x, dtype) for x in logits]
        return fold_tiles(sides, size, chunk, ids[..., None], half[..., None], also=also)

    half = tiles.half_inverse_temperature(temperature, token_ids, dtype)
    return _map_rows_quietly(rows, (token_ids, half, *logits), token_ids.ndim, max(1, tile // chunk))


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
    tile: int | None = None,
    make_tiles: Any = tiles.from_source,
    sum_states: Any = state.sum_states,
) -> tuple[Array, ...]:
    """See `protocol.Backend`; `make_tiles` gives a head's tiles, and `sum_states` computes their state."""
    policy = policy_hidden, policy_head, policy_bias
    reference = reference_hidden, reference_head, reference_bias
    hidden, heads, biases = zip(*(side for side in (policy, reference) if side[0] is not None), strict=True)
    dtype = tiles.computing_dtype(*hidden, *heads)
    size = policy_head.shape[0]
    chunk = min(size, chunk or limits.REFERENCE_CHUNK_ENTRIES)
    tile = tile or limits.REFERENCE_HEAD_TILE_ENTRIES

    def rows(ids: Array, half: Array, *hidden: Array) -> tuple[Array, ...]:
        given = zip(hidden, heads, biases, strict=True)
        sides = [make_tiles(LinearHead(*side, scale, soft_cap), dtype) for side in given]
        return fold_tiles(sides, size, chunk, ids[..., None], half[..., None], sum_states, also)

    half = tiles.half_inverse_temperature(temperature, token_ids, dtype)
    return _map_rows_quietly(rows, (token_ids, half, *hidden), token_ids.ndim, max(1, tile // chunk))


def postprocess(statistics: Any, ids: Array, chosen: Array | None, size: int) -> tuple[Array, ...]:
    """See `protocol.Backend`; the entropy is cut to at most 1, above which only rounding takes it."""
    log_p, log_q, entropy, deviation, *further = statistics
    xp = namespace(log_p)
    known = is_in_range(ids, size)
    entropy = entropy / log(size) if size > 1 else entropy * 0.0
    entropy = xp.where(entropy > 1.0, 1.0, entropy)
    log_p, log_q = (xp.where(known, field, float("nan")) for field in (log_p, log_q))
    fields = (log_p, log_q, entropy, deviation, *further)
    return fields if chosen is None else tuple(xp.where(chosen, field, 0.0) for field in fields)


def log_probs_and_entropy(
    logits: Array, token_ids: Array, temperature: Array | float, *, tile: int | None = None
) -> tuple[Array, Array]:
    """See `protocol.Backend`; `tile` as in `token_statistics`."""
    dtype = tiles.computing_dtype(logits)
    size = logits.shape[-1]
    chunk = min(size, limits.REFERENCE_CHUNK_ENTRIES)
    tile = tile or limits.REFERENCE_TILE_ENTRIES

    def rows(x: Array, ids: Array, half: Array) -> tuple[Array, ...]:
        final = fold_single(x, dtype, chunk, ids[..., None], half[..., None])
        return (
            state.log_prob(final.policy, half[..., None]),
            state.entropy(final.policy, final.moment),
        )

    half = tiles.half_inverse_temperature(temperature, token_ids, dtype)
    return _map_rows_quietly(rows, (logits, token_ids, half), token_ids.ndim, max(1, tile // chunk))


def fold_tiles(
    sides: Sequence[tiles.Tile],
    size: int,
    chunk: int,
    ids: Array,
    half: Array,
    sum_states: Any = state.sum_states,
    also: Sequence[str] = (),
) -> tuple[Array, ...]:
    """Folds the tiles of one model, or of policy and reference, and reads the statistics off the state."""

    def part(start: int, width: int) -> state.State:
        return sum_states([side(start, width) for side in sides], ids - start, half, also)

    return read_statistics(loop.fold_chunks(part, size, chunk, half), half, also)


def read_statistics(final: state.State, half: Array, also: Sequence[str] = ()) -> tuple[Array, ...]:
    """log p, log q, H(p), d of the whole vocabulary's state, and the statistics that are asked for.

    Without a reference log q and d are NaN.
    """
    log_p, entropy = state.log_prob(final.policy, half), state.entropy(final.policy, final.moment)
    if isinstance(final, state.Single):
        log_q = deviation = namespace(log_p).full_like(log_p, float("nan"))
        totals: tuple[Array, ...] = (final.policy.total,)
    else:
        log_q, deviation = state.log_prob(final.reference, half), state.deviation(final)
        totals = final.policy.total, final.reference.total
    further = by_name.read(final.further, totals)
    return by_name.complete(also, (log_p, log_q, entropy, deviation, *further))


def fold_single(logits: Array, dtype: Any, chunk: int, ids: Array, half: Array) -> state.Single:
    """Folds one model's logits."""
    tile = tiles.from_logits(logits, dtype)

    def part(start: int, width: int) -> state.Single:
        return state.single_state(tile(start, width), ids - start, half)

    return loop.fold_chunks(part, logits.shape[-1], chunk, half)


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
    bias: Array | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int | None = None,
    tile: int | None = None,
    make_tiles: Any = tiles.from_source,
    sum_states: Any = state.sum_states,
) -> Array:
    """See `protocol.Backend`; `make_tiles` gives a head's tiles, and `sum_states` computes their state."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(hidden, head))
    source = LinearHead(hidden, head, bias, scale, soft_cap)
    options: dict[str, Any] = {
        "chunk": chunk,
        "tile": tile,
        "make_tiles": make_tiles,
        "sum_states": sum_states,
    }
    return log_prob_and_residuals_from_hidden(source, token_ids, half, **options)[0]


def log_prob_and_residuals_from_hidden(
    source: LinearHead,
    token_ids: Array,
    half: Array,
    *,
    chunk: int | None,
    tile: int | None,
    make_tiles: Any = tiles.from_source,
    sum_states: Any = state.sum_states,
) -> tuple[Array, Array, Array]:
    """log p, and the residuals of its gradient, the peak and ln A; all [...]."""
    size = source.columns
    width = min(size, chunk or limits.REFERENCE_CHUNK_ENTRIES)
    tile = tile or limits.REFERENCE_HEAD_TILE_ENTRIES

    def rows(x: Array, ids: Array, half: Array) -> tuple[Array, ...]:
        logits = make_tiles(source._replace(hidden=x), half.dtype)
        ids, half = ids[..., None], half[..., None]

        def part(start: int, width: int) -> state.Single:
            return sum_states([logits(start, width)], ids - start, half)

        policy = loop.fold_chunks(part, size, width, half).policy
        xp = namespace(policy.peak)
        return state.log_prob(policy, half), policy.peak[..., 0], xp.log(policy.total)[..., 0]

    return _map_rows_quietly(rows, (source.hidden, token_ids, half), token_ids.ndim, max(1, tile // width))


def describe_path(logits: Array, also: Sequence[str] = ()) -> str:
    """See `protocol.Backend`."""
    return "array API"
