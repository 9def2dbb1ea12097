"""OpenRLHF's whole command line on a CPU, by the example's own command, against plain models in float64."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest
import tiny_model
import torch
from commands import run_to_end
from openrlhf_oracle import TAU, expected_kl, largest_error, metric, model, sampling_error
from openrlhf_records import check_lines, check_trackers, keep_wandb_offline
from openrlhf_reward_by_prompt import EVEN

from credit import lens

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "examples" / "openrlhf" / "train_on_cpu.py"
SMALL = (
    "--algo.advantage.estimator witness --credit.plugin openrlhf_witness --rollout.batch_size 4 "
    "--rollout.n_samples_per_prompt 4 --rollout.micro_batch_size 4 --rollout.max_new_tokens 12 "
    "--rollout.temperature 0.8 --train.batch_size 8 --train.micro_batch_size 4 --data.max_samples 8 "
    f"--actor.adam.lr 2e-3 --reward.remote_url {HERE / 'openrlhf_reward.py'} "
)
RECORD = "--credit.record_completions 6 --credit.record_steps"  # one group of four, and not two
LORA = "--ds.lora.rank 4 --ds.lora.alpha 16"


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The folder of a model beside the actor's, for a reference that deviates from the first step on."""
    path = tmp_path_factory.mktemp("other")
    tiny_model.small_qwen2(len(tiny_model.character_tokenizer()), seed=1).save_pretrained(path)
    return str(path)


@pytest.fixture
def train(tmp_path):
    """Trains by the example's command; the saved batches, and what was printed."""

    def run(flags, estimator="dgpo"):
        command = [sys.executable, str(SCRIPT), "--estimator", estimator, "--warm-up", "0.0"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
            "WITNESS": str(tmp_path),
            **keep_wandb_offline(tmp_path),
        }
        command += ["--output", str(tmp_path), *SMALL.split(), *flags.split()]
        printed = run_to_end(command, environment, tmp_path)
        assert printed.count("OpenRLHF trains with witness: ") == 1
        paths = sorted(tmp_path.glob("batch_*.pt"))
        batches = [torch.load(path, weights_only=False) for path in paths]
        for batch in batches:
            assert metric(batch, "error_of_tokens") == 0.0
            assert metric(batch, "fed") >= 18
            low = torch.cat([experience["info"]["low"] for experience in batch["experiences"]])
            assert metric(batch, "low_mean") == pytest.approx(low.mean().item(), abs=1e-6)
            assert not any("own" in experience["info"] for experience in batch["experiences"])
        return batches, printed

    return run


def first_digits(batch):
    """The first character of every prompt that was trained on."""
    tokenizer = tiny_model.character_tokenizer()
    for experience in batch["experiences"]:
        starts = experience["attention_mask"].long().argmax(-1, keepdim=True)
        yield from tokenizer.batch_decode(experience["sequences"].gather(-1, starts))


def steps(printed):
    """What OpenRLHF logged at its global steps, as text."""
    return re.findall(r"Global step \d+: (\{.*\})", printed)


def check_recorded(folder, batches, every=1):
    """That the records are those of the batches, by step; returns them."""
    lines = list(lens.read(folder / "trained/credit.jsonl"))
    recorded = {
        step: [line for line in lines if line.step == step] for step in {line.step: 0 for line in lines}
    }
    assert list(recorded) == list(range(1, len(batches) + 1, every))
    for step, found in recorded.items():
        batch = batches[step - 1]
        check_lines(found, batch["experiences"], batch["statistics"], 6)
    return recorded


def weights_of(tmp_path, batches, per_batch):
    """The policy's saved weights for each batch, by the number of optimiser steps before it."""
    return [torch.load(tmp_path / f"policy_{per_batch * i}.pt") for i in range(len(batches))]


def linear_of_zero_3(values, weight, bias=None):
    """DeepSpeed's linear under ZeRO-3, which rounds to bfloat16 before it adds the bias."""
    product = values.matmul(weight.t())
    return product if bias is None else product + bias


def test_synchronous_training_on_two_ranks_with_zero_3(train, tmp_path, other, monkeypatch):
    batches, printed = train(
        f"--actor.num_gpus_per_node 2 --ds.zero_stage 3 --credit.reference {other} {RECORD} 1 "
        "--logger.wandb.key offline"
    )
    assert [batch["progress"] for batch in batches] == [0.0, 0.5]
    monkeypatch.setattr(torch.nn.functional, "linear", linear_of_zero_3)
    reference = model(other, zero_3=True)
    for batch, weights in zip(batches, weights_of(tmp_path, batches, 2), strict=True):
        policy = model(tmp_path / "model", weights, zero_3=True)
        assert largest_error(batch, policy, reference) < 5e-6
        assert largest_error(batch, policy, reference, tau=TAU / 2) > 1e-2  # another tau is another thing
        assert metric(batch, "deviation_mean") > 1e-3
        assert metric(batch, "kl_mean") == pytest.approx(expected_kl(batch, policy, reference), rel=1e-4)
        assert metric(batch, "weights_mean") == pytest.approx(1.0, abs=1e-6)
    logged = steps(printed)
    assert len(logged) == 2
    for line in logged:
        for name in (
            "credit/weight_std",
            "credit/kl_mean",
            "credit/entropy_mean",
            "actor_grad_norm",
            "group_reward_std",
        ):
            assert f"'{name}'" in line
        assert "nan" not in line
    recorded = check_recorded(tmp_path, batches)
    assert all(max(line.deviation) > 1e-4 for lines in recorded.values() for line in lines)
    check_trackers(tmp_path, recorded, [ast.literal_eval(line) for line in logged])


def test_packing_with_dynamic_batches_on_two_ranks(train, tmp_path, other):
    batches, _ = train(
        "--actor.num_gpus_per_node 2 --ds.packing_samples --train.dynamic_batch_enable "
        f"--train.max_tokens_per_gpu 64 --rollout.max_tokens_per_gpu 64 --credit.reference {other} {RECORD} 2"
    )
    check_recorded(tmp_path, batches, every=2)
    reference = model(other)
    assert len({len(e["index"]) for batch in batches for e in batch["experiences"]}) > 1
    for batch, weights in zip(batches, weights_of(tmp_path, batches, 2), strict=True):
        policy = model(tmp_path / "model", weights)
        # bfloat16 rounds packed rows otherwise than the padded ones here; tau makes that 20 times larger.
        assert largest_error(batch, policy, reference) < 2e-2
        assert largest_error(batch, policy, reference, tau=TAU / 2) > 5e-2


def test_ring_attention_on_two_ranks(train, tmp_path, other):
    batches, printed = train(
        "--actor.num_gpus_per_node 2 --ds.packing_samples --ds.ring_attn_size 2 --ds.ring_attn_head_stride 2 "
        f"--credit.reference {other}"
    )
    reference = model(other)
    for batch, weights in zip(batches, weights_of(tmp_path, batches, 2), strict=True):
        policy = model(tmp_path / "model", weights)
        assert sum(len(experience["index"]) for experience in batch["experiences"]) == 16  # each row once
        assert metric(batch, "deviation_mean") > 1e-3
        assert largest_error(batch, policy, reference) < 2e-2  # packed rows, as above
        assert largest_error(batch, policy, reference, tau=TAU / 2) > 5e-2
    assert all("nan" not in line for line in steps(printed))


def test_lora_whose_reference_is_the_policy_without_it(train, tmp_path):
    batches, _ = train(f"{LORA} --algo.advantage.is_correction_level token")
    assert metric(batches[0], "deviation_max") == 0.0
    assert metric(batches[0], "weight_max") == 1.0
    assert metric(batches[0], "kl_mean") == 0.0 < metric(batches[1], "kl_mean")
    assert metric(batches[1], "deviation_mean") > 1e-6
    weights = weights_of(tmp_path, batches, 2)[1]
    policy, reference = model(tmp_path / "model", weights), model(tmp_path / "model")
    assert largest_error(batches[1], policy, reference) < 5e-6
    # vLLM samples from the policy with its adapter, and a model without it is another thing.
    merged = sampling_error(batches[1], policy.merge_and_unload())
    assert merged < 5e-3
    assert 20 * merged < sampling_error(batches[1], reference)


def test_asynchronous_training_with_filtered_prompts_and_overlong_penalty(train, tmp_path):
    batches, _ = train(
        "--train.async_enable --algo.dynamic_filtering_enable --data.max_samples 24 "
        "--reward.overlong_buffer_len 4 --reward.overlong_penalty_factor 0.5 "
        f"--reward.remote_url {HERE / 'openrlhf_reward_by_prompt.py'} {RECORD} 2",
    )
    check_recorded(tmp_path, batches, every=2)
    assert metric(batches[0], "deviation_max") == 0.0  # starts at its reference
    assert metric(batches[-1], "deviation_mean") > 1e-6
    problems = (tmp_path / "train.jsonl").read_text().splitlines()[:24]
    assert {json.loads(line)["input"][0] in EVEN for line in problems} == {True, False}
    assert not {digit for batch in batches for digit in first_digits(batch)} & set(EVEN)
    reference = model(tmp_path / "model")
    for batch, weights in zip(batches, weights_of(tmp_path, batches, 2), strict=True):
        scores = torch.cat([e["scores"] for e in batch["experiences"]])
        groups = torch.tensor([i for e in batch["experiences"] for i in e["index"]]) // 4
        for group in groups.unique():
            assert scores[groups == group].unique().numel() > 1
        rewards = torch.cat([e["rewards"] for e in batch["experiences"]])
        assert (rewards < scores - 0.1).any()  # overlong
        assert largest_error(batch, model(tmp_path / "model", weights), reference) < 5e-6
