"""SkyRL's whole command on a CPU, by the example's own command: its batches against float64 forwards."""

import json
import os
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
from arithmetic_env import RightCharacters
from commands import run_to_end
from skyrl_models import load_float64
from skyrl_oracle import score
from transformers import AutoTokenizer

import credit

EXAMPLE = Path(__file__).parents[2] / "examples/skyrl"
CLOSE = 2e-5
TEMPERATURE = 0.8
SMALL = {
    "environment.env_class": "right_characters",  # of which a model without warm-up earns some
    "trainer.policy.optimizer_config.lr": 3e-3,
    "trainer.train_batch_size": 4,
    "trainer.policy_mini_batch_size": 2,
    "trainer.micro_forward_batch_size_per_gpu": 4,
    "trainer.micro_train_batch_size_per_gpu": 4,
    "generator.n_samples_per_prompt": 4,
    "generator.sampling_params.temperature": TEMPERATURE,
    "trainer.dump_data_batch": "true",
    "trainer.hf_save_interval": 1,
}
# All models share two GPUs, from which SkyRL moves each while another one works.
COLOCATED = {
    "trainer.placement.colocate_all": "true",
    "trainer.placement.policy_num_gpus_per_node": 2,
    "trainer.placement.ref_num_gpus_per_node": 2,
    "generator.inference_engine.num_engines": 2,
}


@pytest.fixture
def train(tmp_path):
    """Trains by the example's command; what was printed, without colours."""

    def run(*flags, **changed):
        command = [
            sys.executable,
            str(EXAMPLE / "train_on_cpu.py"),
            "--warm-up",
            "0",
            "--output",
            "out",
            *flags,
        ]
        command += [f"{name}={value}" for name, value in (SMALL | changed).items()]
        environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        return re.sub(r"\x1b\[[0-9;]*m", "", run_to_end(command, environment, tmp_path))

    return run


def read_metric(printed, name):
    """The values of a metric in the log, one for each step."""
    return [float(value) for value in re.findall(rf"'{re.escape(name)}': '([^']*)'", printed)]


def read_step(folder, step):
    """The batch that SkyRL dumped, with the rewards once more by the environment."""
    path = folder / f"exports/dumped_data/global_step_{step}_training_input.pkl"
    data = pickle.loads(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = map(json.loads, (folder / "train.jsonl").read_text().splitlines())
    answers = {row["prompt"][0]["content"]: row["answer"] for row in rows}
    prompts, responses, rewards = [], [], []
    for ids, attended, mask in zip(
        data["sequences"], data["attention_mask"], data["response_mask"], strict=True
    ):
        whole, length = ids[attended.bool()].tolist(), int(mask.sum())
        prompts.append(whole[:-length])
        responses.append(whole[-length:])
        texts = [tokenizer.decode(each, skip_special_tokens=True) for each in (prompts[-1], responses[-1])]
        rewards.append(RightCharacters(extras={"answer": answers[texts[0]]}).score(texts[1]))
    assert [prompts[i] == prompts[i - i % 4] for i in range(len(prompts))] == [True] * len(prompts)
    return SimpleNamespace(
        output={"prompt_token_ids": prompts, "response_ids": responses},
        mask=data["loss_mask"] > 0,
        rewards=np.array(rewards),
        advantages=data["advantages"].double().numpy(),
    )


def find_gap(folder, step, estimator):
    """The largest difference of an advantage in a dumped batch from the oracle's."""
    found, before = read_step(folder, step), folder / f"exports/global_step_{step - 1}/policy"
    policy = load_float64(folder / "model" if step == 1 else before)
    named = score(found, policy, load_float64(folder / "model"), TEMPERATURE)
    needed = {name: named[name] for name in estimator.required_fields}
    groups = np.arange(len(found.rewards)) // 4
    rollouts = credit.Rollouts(found.rewards, groups, found.mask.numpy(), **needed)
    return np.abs(found.advantages - oracle.estimate(estimator, rollouts)[1]).max()


@pytest.mark.parametrize("kl", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_dgpo_with_all_models_on_the_same_two_gpus(train, tmp_path, kl):
    """With a KL term SkyRL's own reference is among them, in workers of its own."""
    printed = train("--steps", "3", **COLOCATED, **{"trainer.algorithm.use_kl_loss": kl})
    assert printed.count("SkyRL trains with credit_dgpo: tau=0.05 (default 0.5)") == 1
    for name, start in (("deviation_max", 0.0), ("weight_std", 0.0), ("effective_token_fraction", 1.0)):
        first, *later = read_metric(printed, f"credit/{name}")
        assert first == start
        assert len(later) == 2
        assert all(abs(each - start) > 1e-3 for each in later)
    folder, estimator = tmp_path / "out", credit.DGPO(tau=0.05)
    assert max(find_gap(folder, step, estimator) for step in (1, 2, 3)) < CLOSE
    assert find_gap(folder, 3, credit.GRPO()) > 100 * CLOSE
    assert find_gap(folder, 1, credit.GRPO()) < CLOSE
    terms = read_metric(printed, "policy/policy_kl")
    assert len(terms) == (3 if kl == "true" else 0)
    assert all(each != 0.0 for each in terms[1:])


@pytest.mark.slow
def test_rloo_reads_rewards_alone_and_loads_no_reference(train, tmp_path):
    printed = train("--steps", "1", "--estimator", "rloo")
    assert "SkyRL trains with credit_rloo" in printed
    assert read_metric(printed, "credit/deviation_max") == []
    assert find_gap(tmp_path / "out", 1, credit.get("rloo")) < CLOSE
