"""numpy, and torch on a CPU: one pass in blocks that fit a cache, divided among threads, computed in place.

What a block contributes is in `inplace.py`; how parts merge, and how results follow, in `vocab/state.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from credit.backends import array_api, limits
from credit.backends.array_api import postprocess
from credit.backends.numpy import compiled, inplace
from credit.backends.numpy.threads import count_threads, run_in_threads
from credit.backends.vocab import by_name, state, tiles

__all__ = [
    "describe_path",
    "log_probs_and_entropy",
    "postprocess",
    "selected_log_probs_from_hidden",
    "token_statistics",
    "token_statistics_from_hidden",
]

Array = Any


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
    policy_logits: Array,
    reference_logits: Array | None,
    token_ids: Array,
    temperature: Array | float,
    also: Sequence[str] = (),
) -> tuple[Array, ...]:
    """See `protocol.Backend`."""
    logits = tuple(side for side in (policy_logits, reference_logits) if side is not None)
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(*logits))
    with np.errstate(all="ignore"):
        whole = sum_states(logits, token_ids[..., None], half[..., None], also)
        return array_api.read_statistics(whole, half[..., None], also)


def log_probs_and_entropy(logits: Array, token_ids: Array, temperature: Array | float) -> tuple[Array, Array]:
    """See `protocol.Backend`; numpy has no gradients."""
    half = tiles.half_inverse_temperature(temperature, token_ids, tiles.computing_dtype(logits))[..., None]
    with np.errstate(all="ignore"):
        whole = sum_states((logits,), token_ids[..., None], half)
        return state.log_prob(whole.policy, half), state.entropy(whole.policy, whole.moment)


def sum_states(logits: Sequence[Array], token_ids: Array, half: Array, also: Sequence[str] = ()) -> Any:
    """As `state.sum_states`; the logits of ids UNREAD are not read."""
    selected = [state.select_logits(side, token_ids).astype(half.dtype) for side in logits]
    if compiled.takes(*(side.dtype for side in logits), also=also):
        return compiled.fold(tuple(logits), selected, token_ids, half, count_threads())
    return fold_blocks(tuple(logits), read_block, selected, token_ids, half, count_threads(), also)


def describe_path(logits: Array, also: Sequence[str] = ()) -> str:
    """See `protocol.Backend`."""
    return compiled.PATH if compiled.takes(logits.dtype, also=also) else "numpy blocks"


token_statistics_from_hidden = partial(array_api.token_statistics_from_hidden, sum_states=sum_states)
selected_log_probs_from_hidden = partial(array_api.selected_log_probs_from_hidden, sum_states=sum_states)


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
    also: Sequence[str] = (),
    exponential: inplace.Exponential | None = None,
) -> Any:
    """The state of one model's logits [..., V], or two, that `read` gets by blocks.

    Ids, half and the logits at the ids are [..., 1].
    """
    *tokens, _ = token_ids.shape
    if not tokens:
        lifted = tuple(x[None] for x in logits), read, [x[None] for x in selected]
        whole = fold_blocks(*lifted, token_ids[None], half[None], threads, also, exponential)
        return state.unpack([field[0] for field in state.pack(whole)], also)
    size = logits[0].shape[-1]
    threads = 1 if token_ids.size * size < limits.NUMPY_SINGLE_THREAD_ENTRIES else threads
    blocks = list(split_blocks(tuple(tokens), size, limits.NUMPY_BLOCK_ENTRIES, threads))
    parts = -(-size // block_width(size, limits.NUMPY_BLOCK_ENTRIES))
    fields = state.FIELDS * len(logits)
    states = np.zeros((fields + len(by_name.stored(also)), parts, *tokens, 1), half.dtype)
    states[: fields : state.FIELDS] = np.finfo(half.dtype).min
    for field, logit in zip(states[2 : fields : state.FIELDS], selected, strict=True):
        field[0] = logit  # of one part, since a merge adds them
    summed = [field for place, field in enumerate(states) if place >= fields or place % state.FIELDS != 2]
    base, sums = exponential or inplace.choose_exponential(half.dtype), inplace.count_buffers(also)

    def work(block: Block, scratch: Array) -> None:
        if np.all(token_ids[block.tokens] == tiles.UNREAD):
            return
        rows, columns = block.shape
        wide = inplace.padded_width(columns)
        buffers = [buffer[: rows * wide].reshape(rows, wide) for buffer in scratch]
        sides = [
            read(x, block.place, out[:, :columns]) for x, out in zip(logits, buffers[sums:], strict=True)
        ]
        halves = half[block.tokens].reshape(-1, 1)
        values = inplace.sum_block(tuple(sides), halves, buffers[:sums], base, also)
        for field, value in zip(summed, values, strict=True):
            target = field[(block.part, *block.tokens)]
            target[...] = value.reshape(target.shape)

    buffers = sums + len(logits), limits.NUMPY_BLOCK_ENTRIES + limits.NUMPY_DOT_ENTRIES
    map_blocks(work, blocks, threads, buffers, half.dtype)
    with np.errstate(all="ignore"):
        return _merge_parts([state.unpack(list(states[:, part]), also) for part in range(parts)], half)


def block_width(size: int, entries: int) -> int:
    """Columns of a block: all, or an equal share, since a narrow block costs as many calls as a wide one."""
    if size <= entries:
        return size
    return min(entries, inplace.padded_width(-(-size // -(-size // entries))))


def split_blocks(tokens: tuple[int, ...], size: int, entries: int, threads: int) -> Iterator[Block]:
    """Blocks of at most so many entries, enough for the threads; parts follow from the size alone."""
    width = block_width(size, entries)
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


def map_blocks(
    work: Callable[[Block, Array], None],
    blocks: Sequence[Block],
    threads: int,
    scratch: tuple[int, int],
    dtype: Any,
) -> None:
    """Calls `work` on every block, with buffers that its thread alone uses."""

    def run(share: Sequence[Block]) -> None:
        buffers = np.empty(scratch, dtype)
        with np.errstate(all="ignore"):  # of this thread
            for block in share:
                work(block, buffers)

    run_in_threads(run, blocks, threads)


def _merge_parts(parts: list[Any], half: Array) -> Any:
    """The state of all parts, merged pairwise, so that rounding grows with the logarithm of their number."""
    while len(parts) > 1:
        merged = [state.merge(a, b, half) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = merged + parts[2 * len(merged) :]
    return parts[0]
