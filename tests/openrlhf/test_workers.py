"""Ray's workers: what the hook replaces in them, and that a run without it fails."""

import os
import subprocess
import sys

import pytest
import ray

from credit.adapters.openrlhf import ray_start

SHOW = """
import sys
{setup}
assert not any(name.startswith(("openrlhf", "torch", "ray")) for name in sys.modules)
from openrlhf.trainer.ppo_trainer import BasePPOTrainer
from openrlhf.trainer.ray import ppo_actor, ppo_critic
from openrlhf.utils.agent import MultiTurnAgentExecutor
made = BasePPOTrainer.__init__.__globals__
print(made["RemoteExperienceMaker"].__name__, made["SamplesGenerator"].__name__)
for kind, name in (
    (ppo_actor.PolicyModelActor, "ActorPPOTrainer"),
    (ppo_critic.CriticModelActor, "CriticPPOTrainer"),
):
    print(kind.__ray_actor_class__.init_model_from_pretrained.__globals__[name].__name__)
print("records steps:", hasattr(MultiTurnAgentExecutor.execute, "__wrapped__"))
print("announces steps:", hasattr(BasePPOTrainer.train_step, "__wrapped__"))
"""


@pytest.mark.parametrize(
    ("setup", "classes"),
    [
        (
            "from credit.adapters.openrlhf import worker_setup; worker_setup.install_import_hook()",
            "CreditExperienceMaker CreditSamplesGenerator\nCreditActorPPOTrainer\nCreditCriticPPOTrainer\n"
            "records steps: True\nannounces steps: True",
        ),
        (
            "",
            "RemoteExperienceMaker SamplesGenerator\nActorPPOTrainer\nCriticPPOTrainer\nrecords steps: False\n"
            "announces steps: False",
        ),
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
        assert runtime_env[ray_start.SETUP] == "credit.adapters.openrlhf.worker_setup.install_import_hook"
        return ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)

    try:
        with pytest.raises(RuntimeError, match="started without credit's worker_process_setup_hook"):
            ray_start.with_worker_setup(forgetful)(runtime_env={"env_vars": {}})
        with pytest.raises(RuntimeError, match="Ray was initialized before credit could"):
            ray_start.refuse_running_ray()
    finally:
        ray.shutdown()


def test_another_hook_is_refused():
    with pytest.raises(RuntimeError, match="has a worker_process_setup_hook of its own"):
        ray_start.with_worker_setup(ray.init)(runtime_env={ray_start.SETUP: "mine.setup"})
