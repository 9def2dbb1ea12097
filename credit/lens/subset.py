"""A part of the completions whose page is no larger than it may be: whole groups, spread evenly."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from sys import intern
from typing import Any, NamedTuple

from credit.lens.batches import split_batches
from credit.lens.completion import Completion
from credit.lens.sources import Runs

ATTEMPTS = 4  # The second mostly fits; only the first knows nothing of the part's texts.
MARGIN = 0.97  # of the room: the estimate of a part's size may be that far off
ROW_BYTES, TOKEN_BYTES = 100, 20  # about what a row, and the columns of a token, add to a compressed page
WHOLE = "whole groups spread evenly over the records"
PART = "a part of one group, since a whole one does not fit"
LARGE = "the shortest one, although it alone is too large"


class Entry(NamedTuple):
    """What the choice has to know of a completion."""

    place: int  # in the order of the sources
    side: tuple[str, str]  # run and estimator: what is compared with each other
    batch: tuple[int | None, int]  # step, and number of the batch of that step on that side
    group: int
    row: int
    cost: int  # about proportional to its part of the page


Unit = list[Entry]  # what stays together: a group of a batch, or a row of it, on all sides
Render = Callable[[list[int], str], Any]  # from places and how they were chosen, to what has a size


def observe(runs: Runs, entries: list[Entry]) -> dict[str, Iterator[Completion]]:
    """The same completions; while they are read, an entry of each is appended."""
    return {name: _observe_run(name, completions, entries) for name, completions in runs.items()}


def read_places(runs: Runs, places: set[int]) -> dict[int, tuple[str, Completion]]:
    """The run and completion at each of these places."""
    every = ((name, completion) for name, completions in runs.items() for completion in completions)
    return {place: each for place, each in enumerate(every) if place in places}


def fit(entries: list[Entry], size: int, limit: float, render: Render) -> Any:
    """Renders as many completions as fit, and at least one.

    Args:
        entries: of all completions, whose page has `size` bytes.
        size: larger than the limit.
        limit: of the result's `size`, in bytes.
        render: makes the result.
    """
    cheapest = min(entries, key=lambda entry: entry.cost)
    least = render([cheapest.place], LARGE)
    if least.size > limit:
        return least
    # Every page has the script and the style in common, so sizes are compared with that of the least page.
    budget, fixed = limit - least.size, cheapest.cost
    rate = (size - least.size) / (_cost([entries]) - fixed)
    groups = join(entries, lambda entry: entry.group)
    rows = join(_find_cheapest(groups), lambda entry: entry.row)
    for how, chosen in ((WHOLE, groups), (PART, rows)):
        for _ in range(ATTEMPTS):
            chosen = _shrink(chosen, MARGIN * budget / rate + fixed)
            shown = render(sorted(entry.place for unit in chosen for entry in unit), how)
            if shown.size <= limit:
                return shown
            if len(chosen) == 1:
                break
            rate = (shown.size - least.size) / (_cost(chosen) - fixed)
    return render([cheapest.place], PART)


def join(entries: Iterable[Entry], name: Callable[[Entry], int]) -> list[Unit]:
    """The entries of one name in a batch, on all sides, in order of appearance."""
    units: dict[Any, Unit] = {}
    for entry in entries:
        units.setdefault((entry.batch, name(entry)), []).append(entry)
    return list(units.values())


def pick(units: Sequence[Unit], count: int) -> list[Unit]:
    """That many units: one of every batch before a second of any, spread evenly where not all get one."""
    batches: dict[Any, list[Unit]] = {}
    for unit in units:
        sides = frozenset(entry.side for entry in unit)
        batches.setdefault((unit[0].batch, sides), []).append(unit)
    picked: list[Unit] = []
    for turn in zip_longest(*batches.values()):
        offered = [unit for unit in turn if unit is not None]
        room = min(count - len(picked), len(offered))
        picked += [offered[i * len(offered) // room] for i in range(room)]
    return picked


def _shrink(units: list[Unit], cost: float) -> list[Unit]:
    """As many units as cost no more than that; the cheapest if none does."""
    count = bisect_right(range(1, len(units) + 1), cost, key=lambda n: _cost(pick(units, n)))
    return pick(units, count) if count else [_find_cheapest(units)]


def _find_cheapest(units: list[Unit]) -> Unit:
    return min(units, key=lambda unit: _cost([unit]))


def _cost(units: Iterable[Unit]) -> int:
    return sum(entry.cost for unit in units for entry in unit)


def _observe_run(name: str, completions: Iterable[Completion], entries: list[Entry]) -> Iterator[Completion]:
    numbers: dict[tuple[str, int | None], int] = {}
    for batch in split_batches(completions):
        estimator, step = intern(repr(batch[0].estimator)), batch[0].step
        number = numbers[estimator, step] = numbers.get((estimator, step), -1) + 1
        for completion in batch:
            texts = len(completion.prompt or "") + len(repr(completion.model_extra))
            entries.append(
                Entry(
                    place=len(entries),
                    side=(name, estimator),
                    batch=(step, number),
                    group=completion.group,
                    row=completion.row,
                    cost=ROW_BYTES + texts + TOKEN_BYTES * len(completion.tokens),
                )
            )
            yield completion
