"""verl on a CPU, and configurations of verl as its own command makes them."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", "verl_on_cpu")

import pytest

pytest.importorskip("verl")
import torch
from hydra import compose, initialize_config_module


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def configured():
    """verl's default configuration with overrides, as Hydra composes it."""

    def make(*overrides):
        with initialize_config_module("verl.trainer.config", version_base=None):
            return compose("ppo_trainer", overrides=list(overrides))

    return make
