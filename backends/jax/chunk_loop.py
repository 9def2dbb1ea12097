"""The loop over chunks of the vocabulary, and how large they are."""

import os
from typing import Any

import jax
from jax import lax

TILE = 2**21  # entries per chunk of all rows together
SMALLEST = 512
LARGEST = 2048  # XLA may add up a single row entry by entry: more would lose the entropy's accuracy
FORM = "CREDIT_JAX_FORM"  # in place of the default for given logits; see README.md
FORM_ON_GPU = ""  # the default there: "" as elsewhere, a number of entries per chunk, or "whole"


def chunk_for_rows(rows: int) -> int:
    """Entries per chunk for so many rows."""
    return max(SMALLEST, min(LARGEST, TILE // max(rows, 1)))


def chunk_for_logits(rows: int, size: int) -> int:
    """The same for given logits of a vocabulary of `size`, as the form says."""
    form = os.environ.get(FORM) or (FORM_ON_GPU if jax.default_backend() == "gpu" else "")
    if not form:
        return chunk_for_rows(rows)
    return size if form == "whole" else int(form)


def fold_chunks(part: Any, merge: Any, size: int, chunk: int, half: jax.Array) -> Any:
    """As `state.fold_chunks`, in a loop that XLA compiles once; only the last chunk has another width."""
    chunk = min(chunk, size)
    whole, rest = divmod(size, chunk)

    def body(i: jax.Array, carry: Any) -> Any:
        return merge(carry, part(i * chunk, chunk), half)

    final = lax.fori_loop(1, whole, body, part(0, chunk))
    return merge(final, part(whole * chunk, rest), half) if rest else final
