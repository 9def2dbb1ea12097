"""SkyRL on a CPU: its real trainer and its real FSDP worker, in this process, on a tiny model."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("SKYRL_DUMP_INFRA_LOG_TO_STDOUT", "1")

pytest.importorskip("skyrl")
sys.path.insert(
    0, str(Path(__file__).parents[2] / "examples/skyrl/on_cpu")
)  # flash-attn and what asks for a GPU

import torch
import typed_dict  # noqa: F401  (before SkyRL)
from skyrl.backends.skyrl_train.utils.ppo_utils import AdvantageEstimatorRegistry
from skyrl_models import make_models
from skyrl_steps import Steps

from credit.adapters.skyrl import entrypoint


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The folder of two models."""
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture
def arguments(models, tmp_path):
    """SkyRL's options for a CPU, with some changed or, by None, left out; "__" stands for a dot."""

    def make(**changed):
        named = {
            "trainer.policy.model.path": models / "model",
            "trainer.policy.fsdp_config.mixed_precision.param_dtype": "fp32",
            "trainer.policy.optimizer_config.lr": 1e-2,
            "trainer.strategy": "fsdp",
            "trainer.flash_attn": "false",
            "trainer.remove_microbatch_padding": "false",
            "trainer.gradient_checkpointing": "false",
            "trainer.micro_forward_batch_size_per_gpu": 3,
            "trainer.micro_train_batch_size_per_gpu": 2,
            "trainer.train_batch_size": 2,
            "trainer.policy_mini_batch_size": 1,
            "trainer.algorithm.use_kl_loss": "false",
            "trainer.placement.colocate_all": "false",
            "trainer.logger": "console",
            "trainer.enable_ray_gpu_monitor": "false",
            "trainer.ckpt_path": tmp_path / "checkpoints",
            "trainer.export_path": tmp_path / "exports",
            "generator.inference_engine.enable_ray_prometheus_stats": "false",
            "generator.n_samples_per_prompt": 4,
            "generator.sampling_params.temperature": 1.0,
        }
        named |= {name.replace("__", "."): value for name, value in changed.items()}
        return [f"{name}={value}" for name, value in named.items() if value is not None]

    return make


@pytest.fixture
def check(arguments):
    """The config and the choice that the command makes of options, after credit's checks."""

    def run(name="credit_dgpo", **changed):
        return entrypoint.check_config(arguments(trainer__algorithm__advantage_estimator=name, **changed))

    return run


@pytest.fixture
def own_registry():
    """Takes names out of SkyRL's registry after the test that were not there before."""
    AdvantageEstimatorRegistry.repopulate_registry()
    before = set(AdvantageEstimatorRegistry.list_available())
    yield AdvantageEstimatorRegistry
    for name in set(AdvantageEstimatorRegistry.list_available()) - before:
        AdvantageEstimatorRegistry.unregister(name)


@pytest.fixture
def steps(check, own_registry):
    """SkyRL's trainer and worker for an estimator, whose steps a test takes one by one."""

    def make(estimator="credit_dgpo", settings=None, **changed):
        named = {f"trainer__algorithm__credit__{name}": value for name, value in (settings or {}).items()}
        cfg, choice = check(estimator, **named, **changed)
        return Steps(cfg, choice)

    return make
