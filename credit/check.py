"""`python -m credit.check`: Checks estimators, statistics and loss on every array library and device here.

Each is compared with float64 answers from plain loops, within the documented bounds. The exit status is 1
where a bound is broken or a backend fails. An estimator without loops of its own is compared with itself in
float64 numpy, and the table says so.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from credit.selftest.estimators import check_estimators
from credit.selftest.gradients import check_closed_over_ids, check_loss
from credit.selftest.places import list_places
from credit.selftest.statistics import check_statistics
from credit.selftest.table import Row, write_lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints each line of the table as soon as it is known; 0 if every bound holds."""
    text = (__doc__ or "").partition(": ")[2]
    argparse.ArgumentParser(prog="python -m credit.check", description=text, allow_abbrev=False).parse_args(
        arguments
    )
    return 1 if write_lines(_run_checks()) else 0


def _run_checks() -> Iterator[Row]:
    for place in list_places():
        yield from check_statistics(place)
        yield from check_closed_over_ids(place)
        yield from check_loss(place)
        yield from check_estimators(place)


if __name__ == "__main__":
    sys.exit(main())
