"""TRL's asynchronous trainer with our estimators: its real scoring, its real worker process, its real loss."""

import asyncio
import math
from dataclasses import fields
from functools import partial
from types import SimpleNamespace

import pytest

pytest.importorskip("credit.adapters.trl.async_grpo", reason="from TRL 1.10 on", exc_type=ImportError)
import tiny_model
from accelerate import PartialState
from datasets import Dataset
from stand_in_vllm import attend_in_segments, digits, serve
from trl import chat_template_utils
from trl.experimental.async_grpo import (
    AsyncGRPOConfig,
    AsyncGRPOTrainer,
    async_grpo_trainer,
    async_rollout_worker,
)

import credit
from credit.adapters.trl import CreditGRPOConfig, CreditMixin
from credit.adapters.trl.async_grpo import CreditAsyncGRPOConfig, CreditAsyncGRPOTrainer
from credit.adapters.trl.async_scoring import score_group

NOWHERE = "/nowhere/no-model"
TRLS = {"correction": 0, "eps": 1e-8}  # the constants of AsyncGRPOTrainer's own advantages
Row = async_rollout_worker.TrainingSequence


@pytest.fixture
def make_args(tmp_path):
    def make(estimator=None, kwargs=None, *, config=CreditAsyncGRPOConfig, **settings):
        if config is not AsyncGRPOConfig:
            settings |= {"advantage_estimator": estimator, "advantage_estimator_kwargs": kwargs}
        shared = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
        return config(**shared | settings)

    return make


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dgpo", "needs deviation, normalized_entropy, and .* in a process that has no model"),
        ("top_entropy", "needs normalized_entropy, and"),
        ("process_grpo", "needs token_rewards, turns, and"),
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


def test_different_advantages_of_tokens_are_refused(make_args):
    parts = {"parts": [[1.0, "grpo"], [0.5, {"name": "reinforce_plus_plus", "gamma": 0.5}]]}
    with pytest.raises(ValueError, match="mix gives the tokens of a completion different advantages"):
        CreditAsyncGRPOTrainer(NOWHERE, digits, make_args("mix", parts))


def test_a_worker_with_advantages_of_its_own_is_refused(make_args):
    worker = SimpleNamespace(rollout_buffer=None)
    with pytest.raises(ValueError, match="rollout_worker is a SimpleNamespace, which computes its own"):
        CreditAsyncGRPOTrainer(NOWHERE, digits, make_args("grpo"), rollout_worker=worker)


def test_trls_trainers_refuse_configs_that_they_would_not_read(make_args):
    ours = make_args("grpo")
    with pytest.raises(TypeError, match="AsyncGRPOTrainer would ignore advantage_estimator='grpo' of its Cr"):
        AsyncGRPOTrainer(NOWHERE, digits, ours)
    with pytest.raises(TypeError, match="CreditGRPOConfig; use CreditAsyncGRPOTrainer with a CreditAsync"):
        AsyncGRPOTrainer(NOWHERE, digits, args=make_args("grpo", config=CreditGRPOConfig))
    with pytest.raises(TypeError, match="CreditGRPOConfig; use CreditAsyncGRPOTrainer with a CreditAsync"):
        type("Mixed", (CreditMixin, AsyncGRPOTrainer), {})(
            NOWHERE, digits, make_args("grpo", config=CreditGRPOConfig)
        )
    with pytest.raises(OSError, match="no-model"):
        AsyncGRPOTrainer(NOWHERE, digits, make_args(config=AsyncGRPOConfig))


def score(estimator, rewards, sequences):
    """The samples that TRL's own scoring makes of a group, with the estimator's advantages; None: TRL's."""
    PartialState()
    loop = object.__new__(async_rollout_worker._AsyncRolloutLoop)
    loop.reward_funcs, loop.reward_func_names = [lambda **_: rewards], ["given"]
    loop._env_reward_types, loop._provides_rollout_reward = [], False
    number = len(rewards)
    known = {"prompts": [[]] * number, "completions": [[]] * number, "completions_sequences": sequences}
    known |= {"reward_kwargs": {}, "model_version": 7, "group_id": 3}
    known |= {"tool_call_counts": [0] * number, "tool_failure_counts": [0] * number}
    names = [field.name for field in fields(async_rollout_worker.RolloutGroup)]
    group = async_rollout_worker.RolloutGroup(
        **{name: known.get(name, 0.0 if name == "queued_at" else [None] * number) for name in names}
    )
    run = loop._score_group if estimator is None else partial(score_group, loop._score_group, estimator)
    return asyncio.run(run(group))


def rows(*lengths):
    """One row per length, with that many trained tokens after a prompt of two."""
    return [Row([1, 2] + [5] * n, [0, 0] + [1] * n, [0.0, 0.0] + [-0.5] * n, "r") for n in lengths]


GROUP = ([1.0, 4.0, None, 2.0, 0.0], [rows(3), rows(2, 4), rows(1), [], rows(2)])


def test_grpo_with_trls_constants_gives_trls_advantages():
    ours, theirs = (score(each, *GROUP) for each in (credit.GRPO(**TRLS), None))
    assert [a.advantage for a in ours] == pytest.approx([b.advantage for b in theirs], abs=1e-7)
    assert [(list(a.input_ids), a.metrics["reward"]) for a in ours[:3]] == [
        (list(b.input_ids), b.metrics["reward"]) for b in theirs[:3]
    ]


def test_every_completion_of_the_group_counts():
    """Also one that trains no token; one without a reward does not; the rows of a completion are alike."""
    ours = score(credit.get("rloo"), *GROUP)
    # Of rewards 1, 4, 2 and 0: each less the mean of the other three.
    assert [sample.advantage for sample in ours] == pytest.approx([-1.0, 3.0, 3.0, 0.0, -7 / 3])
    assert math.isnan(ours[3].metrics["reward"])
    assert {(sample.model_version, sample.group_id) for sample in ours} == {(7, 3)}


def test_the_lengths_are_those_of_all_rows_of_a_completion():
    ours = score(credit.get("opo"), [1.0, 4.0], [rows(3), rows(2, 4)])
    baseline = (3 * 1.0 + 6 * 4.0) / 9
    assert [s.advantage for s in ours] == pytest.approx([1 - baseline, 4 - baseline, 4 - baseline])


class Watched(CreditAsyncGRPOTrainer):
    """Keeps the advantages that reach the loss."""

    def compute_loss(self, model, inputs, *arguments, **named):
        self.seen = [*getattr(self, "seen", []), inputs["advantages"].clone()]
        return super().compute_loss(model, inputs, *arguments, **named)


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "dr_grpo"])
def test_training_with_trls_worker_process(make_args, tmp_path, monkeypatch, caplog, name):
    """TRL normalizes a group's advantages to a mean square of 1; dr_grpo's are below 1, as the rewards."""
    packing = pytest.importorskip("trl.experimental.async_grpo.packing", reason="TRL 1.16's attention")
    pytest.importorskip("aiohttp")
    pytest.importorskip("requests")
    attention = SimpleNamespace(flash_attn_varlen_func=attend_in_segments)
    monkeypatch.setattr(packing, "_flash_attn", lambda: attention)
    monkeypatch.setattr(async_grpo_trainer, "get_peak_flops_per_device", lambda *_: None)
    monkeypatch.setattr(async_rollout_worker, "is_vllm_available", lambda *_, **__: True)
    path, tokenizer = str(tmp_path / "model"), tiny_model.character_tokenizer()
    tokenizer.chat_template = chat_template_utils.qwen3_chat_template
    tokenizer.save_pretrained(path)
    tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=1).save_pretrained(path)
    prompts = Dataset.from_dict({"prompt": [[{"role": "user", "content": f"{i}"}] for i in range(8)]})
    with serve(path) as (server, address):
        args = make_args(
            name,
            vllm_server_base_url=address,
            num_generations=4,
            per_device_train_batch_size=8,
            max_completion_length=8,
            max_steps=2,
            logging_steps=1,
            save_strategy="no",
            gradient_checkpointing=False,
            token_budget=-1,
            learning_rate=1e-2,
        )
        trainer = Watched(path, digits, args, prompts, weight_transfer=server)
        trainer.train()
    assert server.received >= 2
    said = [r.getMessage() for r in caplog.records if r.name == "credit" and r.levelname == "INFO"]
    assert said == ([] if name is None else ["TRL trains with dr_grpo: baseline='group'"])
    assert all(math.isfinite(step["loss"]) for step in trainer.state.log_history if "loss" in step)
    largest = max(float(advantages.abs().max()) for advantages in trainer.seen)
    assert 0 < largest < 1 if name else largest >= 1
