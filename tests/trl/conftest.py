"""A tiny model on disk, and trainers over it that run in well under a second a step."""

import os
import shutil
import string
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp()  # which trackio reads when TRL imports it

import pytest

pytest.importorskip("trl")
import tiny_model
import torch
import trl
from datasets import Dataset
from tokenizers import Regex, pre_tokenizers
from transformers import PrinterCallback, ProgressCallback

from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer


def pytest_collection_modifyitems(items):
    """TRL 1.15.0 computes log-probs in Triton's kernels alone, so that it trains on a GPU alone."""
    if version("trl") == "1.15.0" and not torch.cuda.is_available():
        for item in items:
            if item.path.stem != "test_contracts":
                item.add_marker(pytest.mark.skip("TRL 1.15.0 computes log-probs in Triton's kernels alone"))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def trackio_folder():
    yield
    shutil.rmtree(os.environ["TRACKIO_DIR"])


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tokenizer = tiny_model.character_tokenizer()
    tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=2).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory):
    """A tiny model whose tokenizer knows characters and Qwen3's chat template."""
    path = tmp_path_factory.mktemp("chat")
    tokenizer = tiny_model.character_tokenizer(string.printable)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates/qwen3.jinja").read_text()
    model = tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=1)
    model.config.max_position_embeddings, model.config.eos_token_id = 2048, tokenizer.eos_token_id
    model.save_pretrained(path)
    return str(path), tokenizer


def digits(completions, **_):
    """A reward that varies within almost every group: the share of low digits."""
    return [sum(c in "01234" for c in text) / max(len(text), 1) for text in completions]


@pytest.fixture
def make_trainer(model_path, tmp_path):
    """Builds a trainer; unknown keywords are settings of TRL's config."""

    def make(
        estimator=None,
        kwargs=None,
        *,
        kind=CreditGRPOTrainer,
        config=CreditGRPOConfig,
        model=None,
        reward=digits,
        dataset=None,
        extra=None,
        **settings,
    ):
        defaults = {
            "output_dir": str(tmp_path / "out"),
            "use_cpu": True,
            "bf16": False,
            "max_steps": 3,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_completion_length": 12,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "report_to": "none",
            "save_strategy": "no",
            "gradient_checkpointing": False,
            "seed": 1,
        }
        if config is CreditGRPOConfig:
            settings = {"advantage_estimator": estimator, "advantage_estimator_kwargs": kwargs} | settings
        prompts = [f"{a}{b}>" for a in range(10) for b in range(10)]
        trainer = kind(
            model_path if model is None else model,
            reward,
            args=config(**(defaults | settings)),
            train_dataset=Dataset.from_dict({"prompt": prompts}) if dataset is None else dataset,
            **(extra or {}),
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        return trainer

    return make


@pytest.fixture
def train(make_trainer):
    """Trains, and returns the trainer and the log of each step."""

    def run(*arguments, **named):
        trainer = make_trainer(*arguments, **named)
        trainer.train()
        return trainer, [entry for entry in trainer.state.log_history if "grad_norm" in entry]

    return run
