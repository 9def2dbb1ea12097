"""Which of verl's rows hold the last outputs of agent sessions."""

from collections.abc import Sequence


def find_last_rows(keys: Sequence[str] | None, rows: int) -> list[int]:
    """For each of the rows, the one that holds the last output of its session; without keys its own.

    Keys [N] are verl's {prompt}_{session}_{output}.
    """
    return list(range(rows)) if keys is None else find_last_outputs(keys)


def find_last_outputs(keys: Sequence[str]) -> list[int]:
    """For each row [N], the row that holds the last output of its session."""
    last: dict[str, tuple[int, int]] = {}
    for row, key in enumerate(keys):
        session, _, output = key.rpartition("_")
        last[session] = max(last.get(session, (-1, -1)), (int(output), row))
    return [last[key.rpartition("_")[0]][1] for key in keys]
