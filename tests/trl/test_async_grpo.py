"""TRL's asynchronous trainer with our estimators: its real scoring, its real worker process, its real loss."""

import asyncio
import math
from types import SimpleNamespace

import pytest
import tiny_model
from accelerate import PartialState
from datasets import Dataset
from stand_in_vllm import attend_in_segments, digits, serve
from trl import chat_template_utils
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer, async_rollout_worker, packing

import credit
from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer, CreditMixin
from credit.adapters.trl.async_grpo import CreditAsyncGRPOConfig, CreditAsyncGRPOTrainer
from credit.adapters.trl.async_scoring import make_loop

NOWHERE = "/nowhere/no-model"
SETTINGS = {"use_cpu": True, "bf16": False, "report_to": "none"}


@pytest.fixture
def make_args(tmp_path):
    def make(estimator=None, kwargs=None, *, config=CreditAsyncGRPOConfig, **settings):
        if config is CreditAsyncGRPOConfig:
            settings |= {"advantage_estimator": estimator, "advantage_estimator_kwargs": kwargs}
        return config(output_dir=str(tmp_path), **SETTINGS | settings)

    return make


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dgpo", "needs deviation, normalized_entropy, and .* in a process that has no model"),
        ("top_entropy", "needs normalized_entropy, and"),
        ("process_grpo", "needs token_rewards, turns, and"),
        ("reinforce_plus_plus", "compares the completions of several prompts|different advantages"),
        ("gdpo", "weighs several rewards, but TRL passes on their sum in its asynchronous trainer"),
        ("lite_ppo", "compares the completions of several prompts"),
        ("reinforce_plus_plus_baseline", "compares the completions of several prompts"),
        ("gpg", "compares the completions of several prompts"),
        ("dapo", "counts its epochs by the groups that it trains on; use grpo"),
    ],
)
def test_what_cannot_work_is_refused_before_loading(make_args, name, reason):
    with pytest.raises(ValueError, match=f"{name} .*{reason}"):
        CreditAsyncGRPOTrainer(NOWHERE, digits, make_args(name))
