"""verl's own tests of advantages and losses, with verl's functions and with ours in their place.

They are in a checkout of verl's repository (a tag or a commit near the installed release), whose folder the
environment variable VERL_SOURCE names: VERL_SOURCE=~/verl nox -s verl -- tests/verl/test_verls_own_tests.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = os.environ.get("VERL_SOURCE")
FILES = (
    "trainer/ppo/test_core_algos_on_cpu.py",
    "trainer/ppo/test_reinforce_pp_multiturn_on_cpu.py",
    "trainer/test_multi_trajectories_advantage_on_cpu.py",
    "trainer/ppo/test_dynamic_policy_losses_on_cpu.py",
    "trainer/ppo/test_loss_aggregation_on_cpu.py",
    "trainer/ppo/test_value_loss_normalization_on_cpu.py",
    "trainer/ppo/test_rollout_corr.py",
    "trainer/ppo/test_rollout_corr_integration.py",
    "trainer/ppo/v1/test_compute_reward_colocate_on_cpu.py",
)


@pytest.fixture(scope="module")
def run_theirs(tmp_path_factory):
    """Runs verl's tests with further flags of pytest; what is printed."""
    folder = tmp_path_factory.mktemp("verl")  # beside a checkout, Python would import verl from there

    def run(*flags):
        files = [str(Path(SOURCE).expanduser().resolve() / "tests" / name) for name in FILES]
        command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "--import-mode=importlib", "-o"]
        result = subprocess.run(
            [*command, f"cache_dir={folder}", f"--rootdir={folder}", *flags, *files],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        return result.stdout

    return run


@pytest.mark.skipif(SOURCE is None, reason="VERL_SOURCE names no checkout of verl")
def test_all_that_pass_with_verls_functions_pass_with_ours(run_theirs):
    stock, ours = run_theirs(), run_theirs("-p", "ours_in_place")
    passed = [int(re.search(r"(\d+) passed", printed)[1]) for printed in (stock, ours)]
    assert passed[0] == passed[1] > 50
    called = dict(re.findall(r"(\w+)=(\d+)", ours.partition("calls of ours: ")[2]))
    assert {"gae", "grpo", "reinforce_plus_plus", "rloo", "loss"} <= called.keys()
