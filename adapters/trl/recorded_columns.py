"""The data set's columns of recorded rows, such as the answer, by which a reader judges a completion."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from credit.adapters.records import select_plain

ROWS = "credit_rows"  # in TRL's batch, [B]: the places of its rows in what was generated for it
Row = dict[str, Any]


def add_rows(output: dict[str, Any], columns: Mapping[str, Sequence[Any]], generated: list[Row]) -> None:
    """Notes in a batch just generated where its rows are in `generated`, which gets them.

    Of several generations resampling chooses rows, and TRL's batch has no text to follow them by.
    """
    # The prompt, which the records have, is none of them.
    first, plain = len(generated), select_plain(columns)
    rows = len(output["completion_ids"])
    generated += [{name: values[row] for name, values in plain.items()} for row in range(rows)]
    output[ROWS] = torch.arange(first, first + rows, device=output["completion_ids"].device)


def take_columns(output: dict[str, Any], generated: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns of all processes' rows, of those names that every row has; every process calls it."""
    rows = gather_object([generated[row] for row in output.pop(ROWS).tolist()])
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: [row[name] for row in rows] for name in names}
