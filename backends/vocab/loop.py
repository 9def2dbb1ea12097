"""The loop over chunks of the vocabulary."""

from collections.abc import Callable, Iterator
from typing import Any

from credit.backends.vocab import state

Array = Any


def split_vocabulary(size: int, chunk: int) -> Iterator[tuple[int, int]]:
    """(start, width) of each chunk of a vocabulary."""
    for start in range(0, size, chunk):
        yield start, min(chunk, size - start)


def fold_chunks(part: Callable[[int, int], Any], size: int, chunk: int, half: Array) -> Any:
    """The state of the whole vocabulary from `part(start, width)`, chunk after chunk; half is 1 / 2T."""
    places = split_vocabulary(size, chunk)
    whole = part(*next(places))
    for place in places:  # no reduce, which would keep each part alive while the next one is computed
        whole = state.merge(whole, part(*place), half)
    return whole
