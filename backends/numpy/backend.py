"""numpy, and torch on a CPU: one pass in blocks that fit a cache, rows over threads, no arrays made inside.

What a block contributes is in `inplace.py`; how parts merge, and what is read at the end, in `vocab/state.py`.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from credit.backends import array_api
from credit.backends.numpy import inplace
from credit.backends.vocab import state, tiles

Array = Any

BLOCK = 2**18  # entries: large beside the cost of a call, and a few of them fit a cache
NARROW = 2**16  # entries per block of a gradient, which a core's own cache holds
ALONE = 2**20  # entries up to which one thread is faster than several


class Block(NamedTuple):
    """Where a block lies: leading indices, rows of the last leading axis, columns, and its part's number.

    Where whole rows are short the last leading index is a slice, and the block's rows are those of all.
    """

    lead: tuple[int | slice, ...]
    rows: slice
    columns: slice
    part: int

    @property
    def tokens(self) -> tuple[Any, ...]:
        return (*self.lead, self.rows)

    @property
    def place(self) -> tuple[Any, ...]:
        return (*self.lead, self.rows, self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        slices = [index for index in (*self.lead, self.rows) if isinstance(index, slice)]
        rows = prod(index.stop - index.start for index in slices)
        return rows, self.columns.stop - self.columns.start


def token_statistics(
    policy_logits: Array, reference_logits: Array, token_ids: Array, temperature: Array | float
) -> tuple[Array, Array, Array, Array]:
    """See `array_api.token_statistics`."""
    half = tiles.half_inverse_temperature(
        temperature, token_ids, tiles.computing_dtype(policy_logits, reference_logits)
    )
    with np.errstate(all="ignore"):
        whole = pair_state(policy_logits, reference_logits, token_ids[..., None], half[..., None])
        return array_api.read_statistics(whole, half[..., None])


def log_probs_and_entropy(logits: Array, token_ids: Array, temperature: Array | float) -> tuple[Array, Array]:
    """See `array_api.log_probs_and_entropy`; numpy has no gradients."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(logits))[..., None]
    with np.errstate(all="ignore"):
        whole = single_state(logits, token_ids[..., None], half)
        return state.log_prob(whole.policy, half), state.entropy(whole.policy, whole.moment)


def pair_state(x: Array, y: Array, token_ids: Array, half: Array) -> state.Pair:
    """As `state.pair_state`; the logits of ids UNREAD are not read."""
    selected = [state.select_logits(side, token_ids).astype(half.dtype) for side in (x, y)]
    return fold_blocks((x, y), read_block, selected, token_ids, half, count_threads())


def single_state(x: Array, token_ids: Array, half: Array) -> state.Single:
    """As `state.single_state`; the logits of ids UNREAD are not read."""
    selected = [state.select_logits(x, token_ids).astype(half.dtype)]
    return fold_blocks((x,), read_block, selected, token_ids, half, count_threads())


token_statistics_from_hidden = partial(array_api.token_statistics_from_hidden, pair=pair_state)
selected_log_probs_from_hidden = partial(array_api.selected_log_probs_from_hidden, single=single_state)


def read_block(logits: Array, place: tuple[Any, ...], out: Array) -> Array:
    """A block [R, V'] in the type and shape of `out`, as a view where that is possible."""
    block = logits[place]
    if block.dtype == out.dtype and (block.ndim == 2 or block.flags.c_contiguous):
        return block.reshape(out.shape)
    np.copyto(out.reshape(block.shape), block, casting="unsafe")
    return out


def fold_blocks(
    logits: tuple[Array, ...],
    read: Callable[..., Array],
    selected: list[Array],
    token_ids: Array,
    half: Array,
    threads: int,
) -> Any:
    """The state of one model's logits [..., V], or two, that `read` gets by blocks.

    Ids, half and the logits at the ids are [..., 1].
    """
    *tokens, _ = token_ids.shape
    if not tokens:
        lifted = tuple(x[None] for x in logits), read, [x[None] for x in selected]
        return map_fields(lambda field: field[0], fold_blocks(*lifted, token_ids[None], half[None], threads))
    size = logits[0].shape[-1]
    threads = 1 if token_ids.size * size < ALONE else threads
    blocks = list(split_blocks(tuple(tokens), size, BLOCK, threads))
    states = np.zeros((3 * len(logits), -(-size // BLOCK), *tokens, 1), half.dtype)
    states[::3] = np.finfo(half.dtype).min
    exponential = inplace.choose_exponential(half.dtype)

    def work(block: Block, scratch: Array) -> None:
        if np.all(token_ids[block.tokens] == tiles.UNREAD):
            return
        rows, columns = block.shape
        wide = inplace.padded_width(columns)
        buffers = [buffer[: rows * wide].reshape(rows, wide) for buffer in scratch]
        sides = [read(x, block.place, out[:, :columns]) for x, out in zip(logits, buffers[3:], strict=False)]
        values = inplace.sum_block(tuple(sides), half[block.tokens].reshape(-1, 1), buffers[:3], exponential)
        for field, value in zip(states, values, strict=True):
            own = field[(block.part, *block.tokens)]
            own[...] = value.reshape(own.shape)

    run_in_threads(work, blocks, threads, (3 + len(logits), BLOCK + inplace.STRETCH), half.dtype)
    with np.errstate(all="ignore"):
        return _merge_parts(states, selected, half)


def split_blocks(tokens: tuple[int, ...], size: int, entries: int, threads: int) -> Iterator[Block]:
    """Blocks of at most so many entries, enough for the threads; parts follow from the size alone."""
    width = min(size, entries)
    fitting = max(1, entries // inplace.padded_width(width))
    if len(tokens) > 1 and 2 * tokens[-1] <= fitting:  # short responses over a small vocabulary
        *lead, count, length = tokens
        step = max(1, min(fitting // max(1, length), -(-count // (4 * threads))))
        for index in np.ndindex(*lead):
            for start in range(0, count, step):
                several = slice(start, min(start + step, count))
                yield Block((*index, several), slice(0, length), slice(0, size), 0)
        return
    step = max(1, min(fitting, -(-tokens[-1] // (4 * threads))))
    for index in np.ndindex(tokens[:-1]):
        for row in range(0, tokens[-1], step):
            rows = slice(row, min(row + step, tokens[-1]))
            for part, start in enumerate(range(0, size, width)):
                yield Block(index, rows, slice(start, min(start + width, size)), part)


def run_in_threads(
    work: Callable[[Block, Array], None],
    blocks: list[Block],
    threads: int,
    scratch: tuple[int, int],
    dtype: Any,
) -> None:
    """Calls `work` on every block, with buffers of its thread's own."""

    def run(start: int) -> None:
        mine = np.empty(scratch, dtype)
        with np.errstate(all="ignore"):  # of this thread
            for block in blocks[start::threads]:
                work(block, mine)

    threads = max(1, min(threads, len(blocks)))
    if threads == 1:
        run(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, range(threads)))


def _merge_parts(states: Array, selected: list[Array], half: Array) -> Any:
    """The parts' states, joined by pairs."""
    merge: Callable[..., Any] = state.merge_pair if len(selected) == 2 else state.merge_single
    joined: list[Any] = []
    for part in range(states.shape[1]):
        taken = selected if part == 0 else [np.zeros_like(array) for array in selected]
        peak, total, moment, *reference = states[:, part]
        mine = state.Mass(peak, total, taken[0])
        if reference:
            other = state.Mass(reference[0], reference[1], taken[1])
            joined.append(state.Pair(mine, moment, other, reference[2]))
        else:
            joined.append(state.Single(mine, moment))
    while len(joined) > 1:
        merged = [merge(a, b, half) for a, b in zip(joined[::2], joined[1::2], strict=False)]
        joined = merged + joined[2 * len(merged) :]
    return joined[0]


def map_fields(function: Callable[[Array], Array], whole: Any) -> Any:
    """A state with the function applied to each of its arrays."""
    fields = (map_fields(function, f) if isinstance(f, state.Mass) else function(f) for f in whole)
    return type(whole)(*fields)


def count_threads() -> int:
    """How many threads this process may run at once."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
