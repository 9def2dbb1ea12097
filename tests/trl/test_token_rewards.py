"""Lists of reward functions as token_rewards in TRL's real trainer: the advantages are those made by hand."""

import numpy as np
import pytest
import torch
from chat import Adder, AsyncAdder, add, scripted
from datasets import Dataset
from turn_rewards import (
    by_hand,
    outcome,
    per_token,
    per_turn,
    place_tokens,
    place_turns,
    rollout,
    watch,
)

import credit
from credit.adapters.trl import rollouts

ONE = {"max_steps": 1}


CASES = {
    # name, settings: what `rewards` hold, and whether the numbers lie on the last token in token_rewards
    "mt_grpo": ("mt_grpo", {}, "numbers", False),
    "returns": ("mt_grpo", {"gamma": 0.5, "turn_weight": 2.0}, "numbers", False),
    "process": ("process_grpo", {}, "total", True),
    "process-both": ("process_grpo", {"rewards_from": "both"}, "numbers", False),
    "tokens": ("reinforce_plus_plus", {"rewards_from": "tokens", "gamma": 0.9}, "total", True),
    "both": ("reinforce_plus_plus", {"rewards_from": "both", "gamma": 0.9}, "numbers", False),
    "response": ("reinforce_plus_plus", {"gamma": 0.9}, "total", False),
    "total": ("grpo", {}, "total", False),
    "mix": (
        "mix",
        {"parts": [[0.5, "grpo"], [0.5, {"name": "reinforce_plus_plus", "rewards_from": "tokens"}]]},
        "total",
        True,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_advantages_are_those_of_lists_and_numbers_put_together_by_hand(make_trainer, case):
    name, kwargs, rewards, whole = CASES[case]
    trainer = make_trainer(
        name,
        kwargs,
        reward=[per_turn, per_token, outcome],
        reward_weights=[0.5, 2.0, 1.5],
        extra={"rollout_func": rollout},
        **ONE,
    )
    outputs = watch(trainer)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train()
    (output,) = outputs
    mask = rollouts.token_mask(output).bool()
    lengths = output["completion_mask"].sum(dim=1).tolist()
    ids = [row[:length] for row, length in zip(output["completion_ids"].tolist(), lengths, strict=True)]
    outside = [row[:n] for row, n in zip(mask.int().tolist(), lengths, strict=True)]
    turns = per_turn(ids, outside)
    assert {len(each) for each in turns} == {1, 2, 3}
    numbers = [1.5 * each for each in outcome(ids)]
    placed = [
        [
            0.5 * a + 2.0 * b
            for a, b in zip(place_turns(t, m), place_tokens([i / 16 for i in row], m), strict=True)
        ]
        for t, row, m in zip(turns, ids, outside, strict=True)
    ]
    total = [sum(each) + number for each, number in zip(placed, numbers, strict=True)]
    if whole:
        for row, m, number in zip(placed, outside, numbers, strict=True):
            row[len(m) - 1 - m[::-1].index(1)] += number
    expected = by_hand(name, kwargs, mask, total if rewards == "total" else numbers, placed)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(output["advantages"].double(), expected, rtol=0, atol=2e-5)
    changed = [(a - b).abs().max() > 0 for a, b in zip(before, trainer.model.parameters(), strict=True)]
    assert any(changed)
    table = trainer._logs["rewards"]  # TRL's own has the sums
    np.testing.assert_allclose(table["per_turn"], [sum(each) for each in turns], rtol=1e-6)
    np.testing.assert_allclose(table["per_token"], [sum(row) / 16 for row in ids], rtol=1e-6)


def test_where_numbers_lie_tells_the_two_sources_not_apart(make_trainer):
    found = []
    for source in ("tokens", "both"):
        trainer = make_trainer(
            "reinforce_plus_plus",
            {"rewards_from": source},
            reward=[per_turn, outcome],
            overlong_cache_length=4,
            extra={"rollout_func": rollout},
            **ONE,
        )
        outputs = watch(trainer)
        trainer.train()
        found.append(outputs[0]["advantages"])
    assert found[0].abs().max() > 0.5
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)


def test_rewards_of_turns_reach_mt_grpo_through_tools(make_trainer, chat_model):
    path, tokenizer = chat_model
    returned = []

    def turns(completions, **_):
        asked = [[m for m in messages if m["role"] == "assistant"] for messages in completions]
        returned.append([[(k + 1) * len(m["content"]) / 8 for k, m in enumerate(each)] for each in asked])
        return returned[-1]

    def low(completions, **_):
        return [sum(c in "01234" for c in messages[-1]["content"]) / 9 for messages in completions]

    trainer = make_trainer(
        "mt_grpo",
        model=path,
        reward=[turns, low],
        dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": "1+2"}]] * 8}),
        max_completion_length=300,
        extra={"tools": [add], "processing_class": tokenizer},
        **ONE,
    )
    trainer._generate_single_turn = scripted(trainer)
    outputs = watch(trainer)
    trainer.train()
    mask = rollouts.token_mask(outputs[0]).bool()
    assert [len(row) for row in returned[0]] == [1, 2] * 4
    placed = [place_turns(row, m) for row, m in zip(returned[0], mask.int().tolist(), strict=True)]
    expected = by_hand("mt_grpo", {}, mask, list(trainer._logs["rewards"]["low"]), placed)
    torch.testing.assert_close(outputs[0]["advantages"].double(), expected, rtol=0, atol=2e-5)
    assert expected[mask].abs().min(dim=0).values < 1 < expected.abs().max()


@pytest.mark.parametrize("environment", [Adder, AsyncAdder])
def test_an_environment_rewards_the_turns_that_it_answered(make_trainer, chat_model, environment):
    path, tokenizer = chat_model
    trainer = make_trainer(
        "mt_grpo",
        model=path,
        reward=[],
        dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": "1+2"}]] * 8}),
        max_completion_length=300,
        extra={"environment_factory": environment, "processing_class": tokenizer},
        **ONE,
    )
    trainer._generate_single_turn = scripted(trainer)
    outputs = watch(trainer)
    trainer.train()
    earned = [each.earned for each in trainer.environments]
    assert [len(each) for each in earned] == [0, 1] * 4
    mask = rollouts.token_mask(outputs[0]).bool()
    assert credit.tokens.turns(mask).amax(dim=1).tolist() == [0, 1] * 4
    placed = [place_turns(row, m) for row, m in zip(earned, mask.int().tolist(), strict=True)]
    expected = by_hand("mt_grpo", {}, mask, [0.0] * 8, placed)
    torch.testing.assert_close(outputs[0]["advantages"].double(), expected, rtol=0, atol=2e-5)
    assert expected.abs().max() > 0.8
    assert list(trainer._logs["rewards"][environment.__name__]) == pytest.approx([sum(e) for e in earned])


def test_rows_that_a_function_does_not_score(make_trainer):
    def some_turns(completion_ids, outside, **_):
        lists = per_turn(completion_ids, outside)
        return [None if row in (1, 2) else values for row, values in enumerate(lists)]

    def some_outcomes(completion_ids, **_):
        return [None if row in (2, 4) else value for row, value in enumerate(outcome(completion_ids))]

    trainer = make_trainer(
        "mt_grpo", reward=[some_turns, some_outcomes], extra={"rollout_func": rollout}, **ONE
    )
    outputs = watch(trainer)
    trainer.train()
    mask = rollouts.token_mask(outputs[0]).bool()
    assert mask.any(dim=1).tolist() == [row != 2 for row in range(8)]
    again = rollout(["0>"] * 8, trainer=trainer_at(trainer, 0))
    ids, outside = again["completion_ids"], again["env_mask"]
    lists = some_turns(ids, outside)
    placed = [
        place_turns(values or [], m) if row != 2 else []
        for row, (values, m) in enumerate(zip(lists, outside, strict=True))
    ]
    rewards = [0.0 if value is None else value for value in some_outcomes(ids)]
    valid = torch.arange(8) != 2
    expected = by_hand("mt_grpo", {}, mask, rewards, placed, valid)
    torch.testing.assert_close(outputs[0]["advantages"].double(), expected, rtol=0, atol=2e-5)


def trainer_at(trainer, step):
    """The trainer as it was in that step, as far as `rollout` reads it."""
    trainer.state.global_step = step
    return trainer


def test_resampling_and_evaluation_take_the_lists_of_their_rows(make_trainer):
    prompts = [f"{number:02}>" for number in range(100)]

    def half(prompts, completion_ids, **_):
        """Lists that vary within the groups of odd prompts alone."""
        pairs = zip(prompts, completion_ids, strict=True)
        return [[i / 16 * (int(p[:-1]) % 2) for i in ids] for p, ids in pairs]

    trainer = make_trainer(
        "mt_grpo",
        reward=half,
        dataset=Dataset.from_dict({"prompt": prompts}),
        dynamic_sampling="resample",
        per_device_train_batch_size=32,
        per_device_eval_batch_size=16,
        extra={"eval_dataset": Dataset.from_dict({"prompt": prompts[:4]})},
        max_steps=1,
    )
    outputs = watch(trainer)
    trainer.train()
    metrics = trainer.evaluate()
    assert trainer.state.log_history[0]["credit/sampling_rounds"] > 1
    for output, resampled in zip(outputs, (True, *[False] * len(outputs[1:])), strict=True):
        mask = output["completion_mask"].bool()
        texts = trainer._tokenizer.batch_decode(output["prompt_ids"], skip_special_tokens=True)
        odd = torch.tensor([int(text[:-1]) % 2 for text in texts])
        assert bool(odd.all()) == resampled
        lists = (output["completion_ids"] / 16 * odd[:, None] * mask).double()
        expected = by_hand("mt_grpo", {}, mask, torch.zeros(len(odd)), lists.tolist())
        torch.testing.assert_close(output["advantages"].double(), expected, rtol=0, atol=2e-5)
        assert expected.abs().max() > 0.5
    assert metrics["eval_rewards/half/mean"] > 0
