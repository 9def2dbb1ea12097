"""OpenRLHF's own tests of what becomes of rewards, with its experience maker and with ours in its place.

Its wheel installs them as the package `tests`, beside `openrlhf`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import openrlhf
import openrlhf_in_place
import pytest

TESTS = Path(openrlhf.__file__).parents[1] / "tests"


@pytest.fixture(scope="module")
def run_theirs(tmp_path_factory):
    """Runs OpenRLHF's tests with further flags of pytest; what is printed."""
    folder = tmp_path_factory.mktemp(
        "openrlhf"
    )  # beside a checkout, Python would take its `tests` for theirs
    (folder / "pytest.ini").write_text("[pytest]\n")  # in place of that of a checkout around the environment

    def run(*flags):
        command = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "-p", "no:cacheprovider"]
        paths = [str(Path(__file__).parent), *(path for path in sys.path if path)]
        done = subprocess.run(
            [*command, *flags, str(TESTS / "test_reward_shaping.py")],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TORCHDYNAMO_DISABLE": "1"},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout

    return run


def test_all_that_pass_with_openrlhfs_maker_pass_with_ours(run_theirs):
    theirs, ours = run_theirs(), run_theirs("-p", "openrlhf_in_place")
    passed = [int(re.search(r"(\d+) passed", printed)[1]) for printed in (theirs, ours)]
    assert passed[0] == passed[1] > 30
    called = dict(re.findall(r"(\w+)=(\d+)", ours.partition("calls of ours: ")[2]))
    assert called.keys() == openrlhf_in_place.ESTIMATORS.keys()
    assert sum(map(int, called.values())) == passed[1]  # each test calls it once
