"""The table that `python -m credit.check` prints."""

from collections.abc import Iterable
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


def write_lines(rows: Iterable[Row]) -> int:
    """Prints the header, each row as soon as it is there, and the summary; returns how many are broken."""
    left = f"{'library':17s}{'version':14s}{'device':22s}{'what':34s}{'path':26s}"
    print(f"{left}{'error/bound':>11s}{'ms':>9s}", flush=True)
    count = broken = 0
    for row in rows:
        library, version, device, *_ = row.place
        print(
            f"{library:17s}{version:14.13s}{device:22.21s}{row.what:34s}{row.path:26s}"
            f"{row.error:11.3g}{1e3 * row.seconds:9.1f}  {row.note}",
            flush=True,
        )
        count, broken = count + 1, broken + row.is_broken
    print(f"{count} checks, {broken} broken")
    return broken
