"""The README says what the code says."""

import pathlib
import re
import subprocess
import sys

import pytest

from credit import table

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_table_of_estimators_is_the_codes():
    match = re.search(r"<!-- python -m credit.table -->\n(.*?)<!-- end -->", README.read_text(), re.DOTALL)
    assert match
    assert match.group(1) == table.write_markdown(), (
        "put the output of python -m credit.table into the README"
    )


def test_the_first_example_is_the_quickstart():
    quickstart = (README.parent / "examples/quickstart.py").read_text()
    code = [re.sub(r"\s*#.*", "", line).strip() for line in BLOCKS[0].splitlines()]
    assert all(line in quickstart for line in code)


@pytest.mark.parametrize("block", BLOCKS[:2], ids=["quickstart", "own estimator"])
def test_the_examples_run(block):
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=README.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
