"""Runs the tests that are marked gpu, all of them, and writes each outcome to a file as soon as it is known.

python benchmarks/gpu_tests.py results/gpu_tests.jsonl

Tests that passed by that file are left out, so that a run that was stopped goes on. Those of the command for
GPUs come first, then those of the kernels.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from records import read_lines

ROOT = Path(__file__).resolve().parents[1]
FIRST = "test_on_gpu.py"


class Record:
    """A plugin of pytest over a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed = {each["test"] for each in read_lines(path) if each["outcome"] == "passed"}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        known = [item for item in items if item.nodeid in self.passed]
        items[:] = [item for item in items if item.nodeid not in self.passed]
        config.hook.pytest_deselected(items=known)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
        if report.failed:
            line["why"] = str(report.longrepr).strip().splitlines()[-1]
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def main() -> int:
    """pytest's exit status; 0 where nothing was left to run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path)
    record = Record(parser.parse_args().record)
    files = [path for path in (ROOT / "tests").glob("test_*.py") if "mark.gpu" in path.read_text()]
    files.sort(key=lambda path: (path.name != FIRST, path.name))
    # Warnings of other releases than the pinned ones are no errors here.
    options = ["-m", "gpu", "-W", "default", "--disable-warnings", "-p", "no:cacheprovider", "--tb=short"]
    status = pytest.main([*options, *map(str, files)], [record])
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED and record.passed else int(status)


if __name__ == "__main__":
    sys.exit(main())
