"""The loop over chunks of the vocabulary, and how large they are."""

import os
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from credit.backends import limits
from credit.backends.vocab import state

FORM = "CREDIT_JAX_FORM"  # in place of the default for given logits; see README.md


def chunk_for_rows(rows: int) -> int:
    """Vocabulary entries per chunk for so many rows."""
    entries, largest = limits.JAX_CHUNK_ENTRIES, limits.JAX_LARGEST_CHUNK
    if jax.default_backend() == "gpu":
        entries, largest = limits.JAX_GPU_CHUNK_ENTRIES, limits.JAX_GPU_LARGEST_CHUNK
    return max(limits.JAX_SMALLEST_CHUNK, min(largest, entries // max(rows, 1)))


def chunk_for_logits(rows: int, size: int) -> int:
    """The same for given logits of a vocabulary of `size`, as the form says."""
    form = os.environ.get(FORM) or (limits.JAX_FORM_ON_GPU if jax.default_backend() == "gpu" else "")
    if not form:
        return chunk_for_rows(rows)
    return size if form == "whole" else int(form)


def fold_chunks(part: Callable[[Any, int], Any], size: int, chunk: int, half: jax.Array) -> Any:
    """As `vocab.loop.fold_chunks`, in a loop that XLA compiles once."""

    def add(start: Any, width: int, carry: Any) -> Any:
        return state.merge(carry, part(start, width), half)

    chunk = min(chunk, size)
    return loop_over_chunks(add, part(0, chunk), size, chunk, first=1)


def loop_over_chunks(
    step: Callable[[Any, int, Any], Any], carry: Any, size: int, chunk: int, first: int = 0
) -> Any:
    """step(start, width, carry) for each chunk from number `first` on; only the last has another width."""
    whole, rest = divmod(size, chunk)
    carry = lax.fori_loop(first, whole, lambda i, carry: step(i * chunk, chunk, carry), carry)
    return step(whole * chunk, rest, carry) if rest else carry
