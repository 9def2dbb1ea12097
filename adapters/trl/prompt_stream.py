"""A stream of further prompts beside those of TRL's sampler."""

import random
from typing import Any


class PromptStream:
    """Endless passes over a dataset's indices, each in another order; `drawn` is its whole state.

    The stream is the same on every process, so that each can take its own part of what all draw.
    """

    def __init__(self, size: int, seed: int, shuffle: bool) -> None:
        self.size, self.seed, self.shuffle, self.drawn = size, seed, shuffle, 0

    def take(self, count: int) -> list[int]:
        """The next `count` indices."""
        places = range(self.drawn, self.drawn + count)
        self.drawn += count
        passes = {place // self.size for place in places}
        orders = {number: self._order(number) for number in passes}
        return [orders[place // self.size][place % self.size] for place in places]

    def _order(self, number: int) -> Any:
        if not self.shuffle:
            return range(self.size)
        return random.Random(f"extra prompts {self.seed} {number}").sample(range(self.size), self.size)
