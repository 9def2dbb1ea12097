"""What ran in each release of TRL, as a table: python tests/trl/release_table.py FOLDER

FOLDER has one report per release, <release>.xml, as `pytest --junitxml` writes it. Exits with 1 if a test failed.
"""

import sys
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path


def count_outcomes(report: Path) -> dict[str, Counter[str]]:
    """For each file of tests, how many passed, failed and were skipped."""
    found: dict[str, Counter[str]] = {}
    for case in xml.parse(report).iter("testcase"):
        file = (case.get("classname") or case.get("name", "")).rpartition(".")[2].removeprefix("test_")
        states = {child.tag for child in case}
        state = "failed" if states & {"failure", "error"} else "skipped" if "skipped" in states else "passed"
        found.setdefault(file, Counter())[state] += 1
    return found


def format_cell(counts: Counter[str]) -> str:
    """`3` for three that passed, or what became of them."""
    if counts["failed"]:
        return f"**{counts['failed']} of {counts.total()} failed**"
    return str(counts["passed"]) if counts["passed"] else "-"


def main(folder: str) -> int:
    """Prints the table; returns the exit status."""
    reports = {path.stem: count_outcomes(path) for path in Path(folder).glob("*.xml")}
    ordered = sorted(reports, key=lambda release: [int(part) for part in release.split(".")])
    files = sorted({file for found in reports.values() for file in found})
    print("tests that passed, by file; -: skipped, which the test's mark explains\n")
    print("| TRL |", " | ".join(files), "|")
    print("|---" * (len(files) + 1) + "|")
    for release in ordered:
        cells = (format_cell(reports[release].get(file, Counter())) for file in files)
        print(f"| {release} |", " | ".join(cells), "|")
    return int(any(counts["failed"] for found in reports.values() for counts in found.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
