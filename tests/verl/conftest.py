"""verl on a CPU, and configurations of verl as its own command makes them."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", "verl_on_cpu")

import pytest

pytest.importorskip("verl")
import torch
import train_on_cpu
from hydra import compose, initialize_config_dir, initialize_config_module


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def configured():
    """verl's configuration, or one of the example's, with overrides, as Hydra composes it."""

    def make(*overrides, example=None):
        overrides = ("actor_rollout_ref.rollout.n=4", *overrides)
        if example is None:
            with initialize_config_module("verl.trainer.config", version_base=None):
                return compose("ppo_trainer", overrides=list(overrides))
        search = "hydra.searchpath=[pkg://verl.trainer.config]"
        with initialize_config_dir(str(train_on_cpu.HERE / "config"), version_base=None):
            return compose(example, overrides=[search, *overrides])

    return make
