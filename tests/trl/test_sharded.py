"""The same data on one process, under DDP, ZeRO-2, ZeRO-3 and FSDP 2: the same statistics and the same training."""

import json
from functools import cache

import numpy as np
import pytest
import ranks
import tiny_model
import torch
from small_models import gemma2
from transformers import AutoModelForCausalLM

import credit

pytest.importorskip("deepspeed")
import sharded_rank

RANKS = 2
BF16 = {"bf16": True, "gradient_checkpointing": True, "max_steps": 2}
CASES = {  # alike cases are compared with the first of their line on one process
    "ddp": {"like": "plain"},
    "ddp, lora": {"like": "lora", "lora": True},
    "ddp, tied and capped": {"like": "tied and capped"},
    "zero2": {"like": "plain", "stage": 2},
    "zero3": {"like": "plain", "stage": 3},
    "zero3, lora": {"like": "lora", "stage": 3, "lora": True},
    "zero3, tied and capped": {"like": "tied and capped", "stage": 3},
    "zero3, bf16": {"stage": 3, "settings": BF16},
}
# Rows on two ranks, and parameters in parts with LoRA, a tied head and a soft cap; the others mix the same.
ESSENTIAL = ("ddp", "zero3, lora", "zero3, tied and capped")
TIERS = {"essential": ESSENTIAL, "others": tuple(name for name in CASES if name not in ESSENTIAL)}
MARKS = {"essential": (), "others": pytest.mark.slow}
COMPARED = [
    pytest.param(tier, name, id=name, marks=MARKS[tier])
    for tier, names in TIERS.items()
    for name in names
    if "like" in CASES[name]
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Models on disk: a plain one, and one with a tied head and capped logits."""
    tokenizer = tiny_model.character_tokenizer()
    folder = tmp_path_factory.mktemp("models")
    plain = tiny_model.small_qwen2(len(tokenizer), hidden_size=32, layers=2)
    for name, model in {"plain": plain, "tied and capped": gemma2(0)}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("plain", "tied and capped")}


def path_of(paths, case):
    return paths["tied and capped" if case.get("like") == "tied and capped" else "plain"]


@pytest.fixture(scope="module")
def run_tier(paths, tmp_path_factory):
    """Runs the ranks of a tier, once: pytest makes a fixture anew for each place in a list of its parameters."""

    @cache
    def run(tier):
        out = tmp_path_factory.mktemp("ranks")
        given = {
            name: {k: v for k, v in CASES[name].items() if k != "like"}
            | {"model": path_of(paths, CASES[name])}
            for name in TIERS[tier]
        }
        ranks.run(sharded_rank.__file__, RANKS, str(out), json.dumps(given))
        return [torch.load(out / f"{rank}.pt") for rank in range(RANKS)]

    return run


@pytest.fixture(params=[pytest.param(tier, marks=MARKS[tier]) for tier in TIERS])
def sharded(request, run_tier):
    """What each rank saw in each layout of a tier."""
    return run_tier(request.param)


@pytest.fixture(scope="module")
def alone(paths, tmp_path_factory):
    """The same on one process, each kind once."""
    out = str(tmp_path_factory.mktemp("alone"))
    return {
        "plain": sharded_rank.train(paths["plain"], out),
        "lora": sharded_rank.train(paths["plain"], out, lora=True),
        "tied and capped": sharded_rank.train(paths["tied and capped"], out),
    }


@pytest.mark.parametrize(("sharded", "name"), COMPARED, indirect=["sharded"])
def test_training_is_the_same_on_every_layout(sharded, alone, name):
    case = CASES[name]
    expected = alone[case["like"]]
    assert expected["log"][2]["credit/weight_std"] > 0.1  # the weights differ from 1, and the ratio
    assert abs(expected["log"][3]["loss"]) > 1e-3
    for of_rank in sharded:
        found = of_rank["trained"][name]
        assert found["layout"] == ("DEEPSPEED" if "stage" in case else "MULTI_CPU", RANKS)
        for ours, theirs in zip(found["log"], expected["log"], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            for key in ("grad_norm", "credit/weight_std", "credit/deviation_mean", "credit/deviation_max"):
                if key in theirs:
                    assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6), key
        for field, values in expected["seen"].items():
            assert torch.allclose(found["seen"][field].double(), values.double(), atol=1e-4), field
        key = "eval_credit/deviation_mean"
        assert found["eval"][key] == pytest.approx(expected["eval"][key], rel=1e-3)


def test_zero_3_holds_no_head_and_the_first_scores_are_exact(sharded):
    for of_rank in sharded:
        for name, found in of_rank["trained"].items():
            assert (found["own"] == 0) == ("zero3" in name), name
            assert found["whole"] > 0
            assert found["log"][0]["credit/deviation_max"] == 0.0, name
            assert all(np.isfinite([entry["loss"], entry["grad_norm"]]).all() for entry in found["log"])


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "cohere", "granite", "lora"])
def test_fsdp_2_gives_the_same_statistics(sharded, name):
    for of_rank in sharded:
        found = of_rank["fsdp"][name]
        assert found["whole"]["deviation"].max() > 1e-4
        for field, values in found["whole"].items():
            assert torch.allclose(found["sharded"][field], values, atol=2e-6), field
            assert torch.allclose(found["kept"][field], values, atol=2e-6), field


@pytest.mark.parametrize("kind", ["plain", "tied and capped"])
def test_advantages_equal_the_cores_from_float64_forwards(paths, tmp_path, kind):
    settings = {"max_steps": 2, "advantage_estimator_kwargs": {"tau": 0.01}}
    trainer = sharded_rank.trainer_of(paths[kind], str(tmp_path), settings=settings)
    trainer.train()
    inputs = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer._generate_and_score_completions(inputs)
    seen, rewards = trainer.seen, trainer.credit.rewards[:, 0]  # of the one reward function
    reference = AutoModelForCausalLM.from_pretrained(paths[kind], dtype=torch.float64)
    policy = AutoModelForCausalLM.from_pretrained(paths[kind], dtype=torch.float64)
    policy.load_state_dict(trainer.model.state_dict())
    ids = torch.cat([seen["prompt_ids"], seen["completion_ids"]], dim=1)
    attention = torch.cat([seen["prompt_mask"], seen["completion_mask"]], dim=1)
    before = slice(seen["prompt_ids"].shape[1] - 1, -1)
    with torch.no_grad():
        x, y = (
            model(input_ids=ids, attention_mask=attention).logits[:, before] for model in (policy, reference)
        )
    statistics = credit.token_statistics(x, y, seen["completion_ids"])
    rollouts = credit.Rollouts(
        rewards.double(), torch.arange(len(ids)) // 4, seen["completion_mask"], **statistics._asdict()
    )
    result = trainer.credit_estimator(rollouts)
    assert result.weights.std() > 0.05
    assert torch.allclose(seen["advantages"].double(), result.advantages, atol=1e-4)
