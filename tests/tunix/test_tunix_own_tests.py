"""Tunix's own tests of its GRPO learners, with Tunix's learners and with ours in their place.

They are in a checkout of Tunix's repository at tag v0.1.7, whose folder the environment variable TUNIX_SOURCE
names, and import chex and grain, which have to be installed:
TUNIX_SOURCE=~/tunix nox -s tunix -- tests/tunix/test_tunix_own_tests.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = os.environ.get("TUNIX_SOURCE")
FILES = ("rl/grpo/grpo_learner_test.py", "rl/agentic/agentic_grpo_learner_test.py")


@pytest.fixture(scope="module")
def run_theirs(tmp_path_factory):
    """Runs a file of Tunix's tests with further flags of pytest; which tests passed, and what was printed."""
    folder = tmp_path_factory.mktemp("tunix")  # beside a checkout, Python would import tunix from there

    def run(name, *flags):
        file = Path(SOURCE).expanduser().resolve() / "tests" / name
        command = [sys.executable, "-m", "pytest", "-v", "-W", "ignore", "--noconftest", "-c", os.devnull]
        result = subprocess.run(
            [*command, "-p", "no:cacheprovider", f"--rootdir={folder}", *flags, str(file)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        return set(re.findall(r"::(\w+) PASSED", result.stdout)), result.stdout

    return run


@pytest.mark.skipif(SOURCE is None, reason="TUNIX_SOURCE names no checkout of Tunix")
@pytest.mark.parametrize("name", FILES)
def test_all_that_pass_with_tunix_learner_pass_with_ours(run_theirs, name):
    stock, printed = run_theirs(name)
    assert len(stock) > 15, printed[-6000:]
    ours, printed = run_theirs(name, "-p", "ours_in_tunix")
    assert not stock - ours, printed[-6000:]
    assert re.search(r"learners of ours: Credit\w+=\d\d", printed)
