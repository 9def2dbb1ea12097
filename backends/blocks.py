"""numpy, and torch on a CPU: one pass in blocks that fit a cache, rows over threads, no arrays made inside.

What a block contributes is in `block_sums.py`; how parts join and what is read off at the end in `state.py`.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from credit.backends import array_api, block_sums, state, tiles

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
    half = tiles.halved(temperature, token_ids, tiles.computing_dtype(policy_logits, reference_logits))
    with np.errstate(all="ignore"):
        whole = pair(policy_logits, reference_logits, token_ids[..., None], half[..., None])
        return array_api.read_pair(whole, half[..., None])


def log_probs_and_entropy(logits: Array, token_ids: Array, temperature: Array | float) -> tuple[Array, Array]:
    """See `array_api.log_probs_and_entropy`; numpy has no gradients."""
    half = tiles.halved(temperature, token_ids, tiles.computing_dtype(logits))[..., None]
    with np.errstate(all="ignore"):
        whole = single(logits, token_ids[..., None], half)
        return state.log_prob(whole.policy, half), state.entropy(whole.policy, whole.moment)


def pair(x: Array, y: Array, token_ids: Array, half: Array) -> state.Pair:
    """As `state.pair`; the logits of ids UNREAD are not read."""
    selected = [state.select(side, token_ids).astype(half.dtype) for side in (x, y)]
    return fold((x, y), read, selected, token_ids, half, cores())


def single(x: Array, token_ids: Array, half: Array) -> state.Single:
    """As `state.single`; the logits of ids UNREAD are not read."""
    selected = [state.select(x, token_ids).astype(half.dtype)]
    return fold((x,), read, selected, token_ids, half, cores())


token_statistics_from_hidden = partial(array_api.token_statistics_from_hidden, pair=pair)
selected_log_probs_from_hidden = partial(array_api.selected_log_probs_from_hidden, single=single)


def read(logits: Array, place: tuple[Any, ...], out: Array) -> Array:
    """A block [R, V'] in the type and shape of `out`, as a view where that is possible."""
    block = logits[place]
    if block.dtype == out.dtype and (block.ndim == 2 or block.flags.c_contiguous):
        return block.reshape(out.shape)
    np.copyto(out.reshape(block.shape), block, casting="unsafe")
    return out


def fold(
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
        return over_fields(lambda field: field[0], fold(*lifted, token_ids[None], half[None], threads))
    size = logits[0].shape[-1]
    threads = 1 if token_ids.size * size < ALONE else threads
    blocks = list(cut(tuple(tokens), size, BLOCK, threads))
    states = np.zeros((3 * len(logits), -(-size // BLOCK), *tokens, 1), half.dtype)
    states[::3] = np.finfo(half.dtype).min
    exponential = block_sums.exponential_of(half.dtype)

    def work(block: Block, scratch: Array) -> None:
        if np.all(token_ids[block.tokens] == tiles.UNREAD):
            return
        rows, columns = block.shape
        wide = block_sums.padded(columns)
        buffers = [buffer[: rows * wide].reshape(rows, wide) for buffer in scratch]
        sides = [read(x, block.place, out[:, :columns]) for x, out in zip(logits, buffers[3:], strict=False)]
        values = block_sums.sums(tuple(sides), half[block.tokens].reshape(-1, 1), buffers[:3], exponential)
        for field, value in zip(states, values, strict=True):
            own = field[(block.part, *block.tokens)]
            own[...] = value.reshape(own.shape)

    over_threads(work, blocks, threads, (3 + len(logits), BLOCK + block_sums.STRETCH), half.dtype)
    with np.errstate(all="ignore"):
        return _join(states, selected, half)


def cut(tokens: tuple[int, ...], size: int, entries: int, threads: int) -> Iterator[Block]:
    """Blocks of at most so many entries, enough for the threads; parts follow from the size alone."""
    width = min(size, entries)
    fitting = max(1, entries // block_sums.padded(width))
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


def over_threads(
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


def _join(states: Array, selected: list[Array], half: Array) -> Any:
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


def over_fields(function: Callable[[Array], Array], whole: Any) -> Any:
    """A state with the function applied to each of its arrays."""
    fields = (over_fields(function, f) if isinstance(f, state.Mass) else function(f) for f in whole)
    return type(whole)(*fields)


def cores() -> int:
    """How many threads this process may run at once."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
