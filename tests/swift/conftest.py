"""ms-swift on a CPU: a tiny model, and its command run within the tests' own process."""

import os
from pathlib import Path

import pytest

os.environ |= {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "MODELSCOPE_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

pytest.importorskip("swift.rlhf_trainers", reason="ms-swift is not installed")

import torch
from forwards import counted_rows
from swift.pipelines import rlhf_main
from swift.pipelines.train.rlhf import SwiftRLHF
from swift.rlhf_trainers import GRPOTrainer
from swift.trainers import TrainerFactory
from swift_models import make_models
from swift_witness import Witness

from credit.adapters.swift import choice, train_with

REWARDS = str(Path(__file__).parent / "swift_rewards.py")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with `model`, `reference` (the model with noise on its weights) and `data.jsonl`."""
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture
def flags(models, tmp_path):
    """The flags of a run of two steps, of two micro-batches of one group of four each."""
    given = {
        "rlhf_type": "grpo",
        "model": models / "model",
        "model_type": "qwen2",
        "template": "qwen2_5",
        "use_hf": "true",
        "check_model": "false",
        "dataset": models / "data.jsonl",
        "external_plugins": REWARDS,
        "reward_funcs": "digits",
        "tuner_type": "full",
        "torch_dtype": "float32",
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_completion_length": 12,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "temperature": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
        "split_dataset_ratio": 0,
        "report_to": "none",
        "output_dir": tmp_path / "out",
        "add_version": "false",
        "dataset_num_proc": 1,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": "false",
        "gradient_checkpointing": "false",
        "seed": 1,
    }
    return {name: str(value) for name, value in given.items()}


@pytest.fixture
def command(flags):
    """The command's arguments, with some flags changed or, by None, left out."""

    def make(**changed):
        named = flags | changed
        return [
            part for name, value in named.items() if value is not None for part in list_parts(name, value)
        ]

    return make


def list_parts(name, value):
    values = value if isinstance(value, (list, tuple)) else [value]
    return [f"--{name}", *map(str, values)]


@pytest.fixture
def train(command, monkeypatch):
    """Runs the command with an estimator, or with ms-swift's own for None, and returns what was witnessed."""

    def run(estimator=None, *, credit_settings=None, **changed):
        monkeypatch.setattr(choice, "_chosen", [])
        monkeypatch.setitem(TrainerFactory.TRAINER_MAPPING, "grpo", "swift.rlhf_trainers.GRPOTrainer")
        kind = GRPOTrainer
        if estimator is not None:
            train_with(estimator, **(credit_settings or {}))
            from credit.adapters.swift.trainer import CreditGRPOTrainer as kind
        with Witness(kind) as witness, counted_rows() as witness.forwards:
            rlhf_main(command(**changed))
        return witness

    return run


class Loaded(Exception):
    """Ends a run where it would load a model."""


@pytest.fixture
def check(command, monkeypatch):
    """The arguments of a run as they are when it would load its first model."""

    def run(estimator="dgpo", **changed):
        monkeypatch.setattr(choice, "_chosen", [])
        train_with(estimator)
        with monkeypatch.context() as patch:

            def stop(self, *_):
                raise Loaded(self.args)

            patch.setattr(SwiftRLHF, "_prepare_single_model", stop)
            with pytest.raises(Loaded) as stopped:
                SwiftRLHF(command(**changed))
        return stopped.value.args[0]

    return run
