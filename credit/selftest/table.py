"""The table that `python -m credit.check` prints."""

from collections.abc import Iterator
from typing import NamedTuple

from credit.selftest.places import Place


class Row(NamedTuple):
    """A line of the table; the error is in units of its bound."""

    place: Place
    what: str
    path: str
    error: float
    seconds: float
    note: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether the error exceeds its bound or is NaN."""
        return not self.error <= 1.0


def write_lines(rows: list[Row]) -> Iterator[str]:
    """The header, a line per row, and how many rows are broken."""
    left = f"{'library':17s}{'version':14s}{'device':22s}{'what':34s}{'path':26s}"
    yield f"{left}{'error/bound':>11s}{'ms':>9s}"
    for row in rows:
        library, version, device, *_ = row.place
        yield (
            f"{library:17s}{version:14.13s}{device:22.21s}{row.what:34s}{row.path:26s}"
            f"{row.error:11.3g}{1e3 * row.seconds:9.1f}  {row.note}"
        )
    yield f"{len(rows)} checks, {sum(row.is_broken for row in rows)} broken"
