"""The README says what the code says."""

import pathlib
import re
import subprocess
import sys
from typing import Literal

import pytest

from credit import GRPO, PolicyLoss, table

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_table_of_estimators_is_the_codes():
    match = re.search(r"<!-- python -m credit.table -->\n(.*?)<!-- end -->", README.read_text(), re.DOTALL)
    assert match
    assert match.group(1) == table.write_markdown(), (
        "put the output of python -m credit.table into the README"
    )


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (PolicyLoss(clip_high=0.28), "clip 0.2 / 0.28, sequence mean"),
        (PolicyLoss.from_paper("gspo"), "clip 0.0003 / 0.0004, sequence ratio, sequence mean"),
        (PolicyLoss.from_paper("sapo"), "sapo, sequence mean"),
        (PolicyLoss.from_paper("clip_cov"), "clip-cov, clip 1, token mean"),
    ],
    ids=repr,
)
def test_the_table_describes_a_loss_by_what_it_reads(own_registry, loss, text):
    own = loss

    class Own(GRPO):
        name: Literal["own_for_table"] = "own_for_table"
        loss: PolicyLoss = own

    Own.__module__ = "credit.own"
    assert f"| {text} |" in next(
        line for line in table.write_markdown().splitlines() if "own_for_table" in line
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
