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
from training_runs import run_training, with_agent_loop


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


@pytest.fixture(scope="session")
def recorded_run(tmp_path_factory):
    """A run of DGPO that records completions: its folder, the log of each step, and what was printed.

    It has two ranks, filtered groups, padding rows, arrays of the user's own and an estimator that reads them.
    """
    folder = tmp_path_factory.mktemp("recorded")
    log, printed = run_training(
        folder,
        "dgpo",
        "algorithm.adv_estimator=credit_witness",
        "+algorithm.credit.token_rewards=turn_scores",
        "+algorithm.credit.record_steps=2",
        *with_agent_loop(folder, "scoring_loop.ScoringLoop"),
        "actor_rollout_ref.model.external_lib=witness",
        "trainer.n_gpus_per_node=2",
        "trainer.logger=[console,file,wandb,tensorboard]",
        "actor_rollout_ref.actor.ppo_mini_batch_size=3",
        "algorithm.filter_groups.enable=True",
        WANDB_MODE="offline",
        WANDB_DIR=str(folder),
        TENSORBOARD_DIR=str(folder / "tensorboard"),
    )
    return folder, log, printed
