"""TRL's table of completions, whose rows have to be those of the batch that is trained on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Table = dict[tuple[str, str], list[Any]]  # columns by kind and name


def last_rows(table: Mapping[str, Any], count: int) -> Table:
    """The last `count` rows of TRL's `_logs`, with None for the rows that a column does not have."""
    rows = {key: list(column)[-count:] for key, column in _iterate_columns(table)}
    return {key: [None] * (count - len(column)) + column for key, column in rows.items()}


def replace_rows(table: Mapping[str, Any], parts: Sequence[tuple[int, Table]], rows: Sequence[int]) -> None:
    """Replaces the rows of `_logs` by the chosen rows of several tables.

    Each part is a number of rows and their table; `rows` counts the rows of all parts consecutively.
    """
    for key, column in _iterate_columns(table):
        every = [value for count, part in parts for value in part.get(key, [None] * count)]
        column.clear()
        column.extend(every[row] for row in rows)


def set_advantages(table: Mapping[str, Any], advantages: Sequence[float]) -> None:
    """Replaces the advantages of the last rows."""
    column = table["advantages"]
    for _ in range(min(len(advantages), len(column))):
        column.pop()
    column.extend(advantages)


def _iterate_columns(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    yield from (((name, ""), table[name]) for name in ("prompt", "completion", "advantages"))
    for kind in ("rewards", "extra"):
        yield from (((kind, name), column) for name, column in table[kind].items())
