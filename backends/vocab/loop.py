"""The loop over chunks of the vocabulary."""

from collections.abc import Callable
from functools import reduce
from typing import Any

from credit.backends.vocab import state

Array = Any


def split_vocabulary(size: int, chunk: int) -> list[tuple[int, int]]:
    """(start, width) of each chunk of a vocabulary."""
    return [(start, min(chunk, size - start)) for start in range(0, size, chunk)]


def fold_chunks(part: Callable[[int, int], Any], size: int, chunk: int, half: Array) -> Any:
    """The state of the whole vocabulary from `part(start, width)`, chunk after chunk; half is 1 / 2T."""
    parts = (part(*place) for place in split_vocabulary(size, chunk))
    return reduce(lambda a, b: state.merge(a, b, half), parts)
