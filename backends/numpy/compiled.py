"""The compiled path of a CPU, which CREDIT_CPU=compiled chooses: numba's kernels in place of numpy's blocks.

It takes float32 logits, and torch's bfloat16. Other types, and calls that ask by name for more than the
entropy, numpy's blocks compute as without it, and `describe_path` says so. The kernels are compiled when they
are first needed, once per machine: numba keeps them on disk.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from credit.backends import limits
from credit.backends.numpy.threads import run_in_threads
from credit.backends.vocab import by_name, state

Array = Any
CHOICE = "CREDIT_CPU"
PATH = "compiled rows"
HALF = np.dtype(np.uint16)  # the bits of bfloat16, which numpy lacks
KINDS = (np.dtype(np.float32), HALF)


class Rows(NamedTuple):
    """Logits [N, V] as they lie in memory: of a type of KINDS, from each offset on with a step."""

    words: Array
    halves: Array
    offsets: Array
    step: int


def is_chosen() -> bool:
    """Whether the environment asks for the compiled path."""
    chosen = os.environ.get(CHOICE, "numpy")
    if chosen not in ("numpy", "compiled"):
        raise ValueError(f"{CHOICE} is {chosen!r}; it may be 'numpy' (the default) or 'compiled'")
    return chosen == "compiled"


def takes(*kinds: Any, also: Sequence[str] = ()) -> bool:
    """Whether the compiled path is chosen, and computes this of logits of these numpy types."""
    return is_chosen() and not by_name.stored(also) and all(kind in KINDS for kind in kinds)


def fold(
    logits: Sequence[Array], selected: Sequence[Array], token_ids: Array, half: Array, threads: int
) -> Any:
    """The state of one model's logits [..., V], or two; ids, half and the logits at the ids are [..., 1]."""
    kernels, size = import_kernels(), logits[0].shape[-1]
    sides = [read_rows(side) for side in logits]
    ids, halves = _flatten(token_ids, np.int64), _flatten(half, np.float32)
    out = np.empty((3 * len(sides), len(ids)), np.float32)

    def run(pieces: Sequence[tuple[int, int]]) -> None:
        for piece in pieces:
            kernels.fold_rows(
                *sides[0], *sides[-1], size, ids, halves, *piece, limits.COMPILED_TILE_ENTRIES, out
            )

    _run_rows(run, len(ids), size, threads)
    fields = [field.reshape(token_ids.shape) for field in out]
    policy = state.Mass(fields[0], fields[1], selected[0])
    if len(sides) == 1:
        return state.Single(policy, fields[2])
    return state.Pair(policy, fields[2], state.Mass(fields[3], fields[4], selected[1]), fields[5])


def write_grad_logits(
    logits: Array,
    out: Array,
    threads: int,
    token_ids: Array,
    half: Array,
    residuals: Array,
    grad_output: Array,
) -> None:
    """The gradient of log p and H in logits [..., V] into `out`, which has their type and no gaps.

    ids and half are [...], the residuals [3, ...] peak, ln A and H, and grad_output [2, ...].
    """
    kernels, size, rows = import_kernels(), logits.shape[-1], read_rows(logits)
    ids, halves = _flatten(token_ids, np.int64), _flatten(half, np.float32)
    per_token = [np.ascontiguousarray(a.reshape(len(a), -1), np.float32) for a in (residuals, grad_output)]
    targets = _by_kind(out.reshape(-1))

    def run(pieces: Sequence[tuple[int, int]]) -> None:
        for piece in pieces:
            kernels.grad_rows(
                *rows, size, ids, halves, *per_token, *piece, limits.COMPILED_TILE_ENTRIES, *targets
            )

    _run_rows(run, len(ids), size, threads)


def read_rows(array: Array) -> Rows:
    """Where the rows of an array [..., V] lie; it is not copied unless it is stored backwards or askew."""
    size = array.itemsize
    if not array.flags.aligned or any(stride < 0 or stride % size for stride in array.strides):
        array = np.ascontiguousarray(array)
    *steps, step = (stride // size for stride in array.strides)
    offsets = np.zeros(array.shape[:-1], np.int64)
    for axis, (length, stride) in enumerate(zip(array.shape[:-1], steps, strict=True)):
        offsets += (np.arange(length) * stride).reshape(-1, *[1] * (offsets.ndim - axis - 1))
    entries = int(offsets.max()) + (array.shape[-1] - 1) * step + 1 if array.size else 0
    memory = np.lib.stride_tricks.as_strided(array, (entries,), (size,), writeable=False)
    return Rows(*_by_kind(memory), offsets.reshape(-1), step)


def import_kernels() -> Any:
    """The kernels; an ImportError names what to install."""
    try:
        from credit.backends.numpy import compiled_kernels
    except ImportError as error:
        raise ImportError(
            f"{CHOICE}=compiled needs numba, which cannot be imported ({error}): "
            "pip install 'token-credit[compiled]'"
        ) from error
    except RuntimeError as error:
        raise RuntimeError(
            f"{CHOICE}=compiled keeps what numba compiles on disk, and numba cannot ({error}): set "
            "NUMBA_CACHE_DIR to a folder that can be written to"
        ) from error
    return compiled_kernels


def _by_kind(memory: Array) -> tuple[Array, Array]:
    """Words and halves, one of which is empty."""
    none = np.empty(0, HALF if memory.dtype == np.float32 else np.float32)
    return (memory, none) if memory.dtype == np.float32 else (none, memory)


def _flatten(array: Array, dtype: Any) -> Array:
    return np.ascontiguousarray(array, dtype).reshape(-1)


def _run_rows(run: Any, rows: int, size: int, threads: int) -> None:
    """Calls `run` with ranges of rows, several for each thread."""
    threads = 1 if rows * size < limits.NUMPY_SINGLE_THREAD_ENTRIES else threads
    step = max(1, -(-rows // (4 * threads)))
    run_in_threads(run, [(first, min(first + step, rows)) for first in range(0, rows, step)], threads)
