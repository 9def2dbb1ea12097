"""Ray's workers: what the hook replaces in them, and that a run without it fails."""

import os
import subprocess
import sys

import pytest
import ray

from credit.adapters.openrlhf import workers

SHOW = """
import sys
{setup}
assert not any(name.startswith(("openrlhf", "torch", "ray")) for name in sys.modules)
from openrlhf.trainer.ppo_trainer import BasePPOTrainer
made = BasePPOTrainer.__init__.__globals__
print(made["RemoteExperienceMaker"].__name__, made["SamplesGenerator"].__name__)
"""


@pytest.mark.parametrize(
    ("setup", "classes"),
    [
        (
            "from credit.adapters.openrlhf import hook; hook.install()",
            "CreditExperienceMaker CreditSamplesGenerator",
        ),
        ("", "RemoteExperienceMaker SamplesGenerator"),
    ],
)
def test_the_hook_replaces_what_trainers_use_and_imports_nothing_itself(setup, classes):
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(setup=setup)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert classes in done.stdout, done.stderr[-2000:]


def test_a_worker_without_the_hook_ends_the_run():
    def forgetful(*args, runtime_env, **named):
        assert runtime_env[workers.SETUP] == "credit.adapters.openrlhf.hook.install"
        return ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)

    try:
        with pytest.raises(RuntimeError, match="started without credit's worker_process_setup_hook"):
            workers.with_hook(forgetful)(runtime_env={"env_vars": {}})
        with pytest.raises(RuntimeError, match="Ray was initialised before credit could"):
            workers.refuse_running_ray()
    finally:
        ray.shutdown()


def test_another_hook_is_refused():
    with pytest.raises(RuntimeError, match="has a worker_process_setup_hook of its own"):
        workers.with_hook(ray.init)(runtime_env={workers.SETUP: "mine.setup"})
