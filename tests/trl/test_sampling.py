"""Groups without signal leave the batch, or give way to others, in TRL's real trainer."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset

import credit
from credit.adapters.trl import CreditGRPOConfig, options, sampling, statistics
from credit.adapters.trl.prompt_stream import PromptStream

PROMPTS = Dataset.from_dict({"prompt": [f"{number:0{2 if number % 25 else 12}}>" for number in range(100)]})
BATCH = {"per_device_train_batch_size": 32, "max_steps": 1, "dataset": PROMPTS}  # 8 groups of 4


def half(prompts, completions, **_):
    """Varies within the groups of odd prompts only."""
    pairs = zip(prompts, completions, strict=True)
    return [len(set(text)) / 8 if int(prompt[:-1]) % 2 else 0.5 for prompt, text in pairs]


def flat(completions, **_):
    return [0.5] * len(completions)


def table(trainer):
    rewards = np.asarray(next(iter(trainer._logs["rewards"].values())))
    return (
        trainer._logs["prompt"],
        trainer._logs["completion"],
        rewards,
        np.asarray(trainer._logs["advantages"]),
    )


@pytest.mark.parametrize("loss_type", ["dapo", "bnpo", "grpo", "dr_grpo"])
def test_filtered_groups_leave_the_loss_and_its_normaliser(train, loss_type):
    settings = BATCH | {"reward": half, "loss_type": loss_type}
    every, unfiltered = train("dapo", dynamic_sampling="none", **settings)
    rest, filtered = train("dapo", **settings)  # the estimator's own choice
    batch, whole = rest._buffered_inputs[0], every._buffered_inputs[0]["completion_mask"]
    tokens = batch["completion_mask"].sum(dim=1)
    dead = (tokens == 0).float().mean().item()
    assert 0 < dead < 1
    assert filtered[0]["credit/dropped_groups"] == pytest.approx(dead)
    assert filtered[0]["credit/invalid_rows"] == 0
    assert "credit/dropped_groups" not in unfiltered[0]
    assert batch["num_items_in_batch"] == tokens.sum()
    ratio = 1 / (1 - dead) if "grpo" in loss_type else (whole.sum() / tokens.sum()).item()
    assert filtered[0]["grad_norm"] == pytest.approx(ratio * unfiltered[0]["grad_norm"], rel=1e-4)


def style(completions, **_):
    """Varies within almost every group, as a format score does."""
    return [0.01 * len(set(text)) for text in completions]


def dead_rows(trainer):
    """The prompt of each row of the last batch, and whether it trains on nothing."""
    batch = trainer._buffered_inputs[0]
    ids = batch["prompt_ids"] * batch["prompt_mask"]
    texts = trainer._tokenizer.batch_decode(ids, skip_special_tokens=True)
    return list(zip(texts, (batch["completion_mask"].sum(dim=1) == 0).tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dapo", {"dynamic_sampling_reward": "half"}),
        ("dapo", {"kwargs": {"filter_by": 1}}),
        ("dgpo", {"kwargs": {"base": {"name": "dapo", "filter_by": 1}}}),
        ("gdpo", {"dynamic_sampling_reward": "half", "dynamic_sampling": "filter"}),
    ],
    ids=str,
)
def test_groups_that_vary_only_in_style_are_dropped_by_the_named_reward(train, name, settings):
    trainer, log = train(name, **BATCH, reward=[style, half], overlong_cache_length=4, **settings)
    rows = dead_rows(trainer)
    assert {dead for _, dead in rows} == {True, False}
    assert log[0]["credit/dropped_groups"] == pytest.approx(np.mean([dead for _, dead in rows]))
    for prompt, dead in rows:
        assert dead == (int(prompt[:-1]) % 2 == 0)


def test_without_a_name_they_stay(train):
    trainer, log = train("dapo", **BATCH, reward=[style, half])
    assert log[0]["credit/dropped_groups"] == 0
    assert not any(dead for _, dead in dead_rows(trainer))


def test_resampling_by_the_named_reward_trains_on_groups_that_vary_in_it(train):
    several = BATCH | {"reward": [style, half], "dynamic_sampling": "resample"}
    trainer, log = train("dapo", dynamic_sampling_reward="half", **several)
    assert all(int(prompt[:-1]) % 2 for prompt in trainer._logs["prompt"])
    assert log[0]["credit/sampling_rounds"] > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dynamic_sampling_reward": "accuracy"},
            "is 'accuracy', and of the reward functions style, half none",
        ),
        (
            {"dynamic_sampling_reward": "style", "reward": [style, style]},
            "style, style several have that name",
        ),
        (
            {"kwargs": {"filter_by": 2}},
            r"filter_by=2 counts the reward functions style, half from 0; .* 0\.\.1",
        ),
        ({"kwargs": {"filter_by": 2}, "overlong_cache_length": 4}, r"expected 0\.\.1"),
    ],
)
def test_a_reward_that_is_not_there_is_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer("dapo", **({"reward": [style, half]} | settings))


def test_any_estimator_can_be_filtered(train):
    _, log = train("dgpo", dynamic_sampling="filter", reward=half, **BATCH)
    assert 0 < log[0]["credit/dropped_groups"] < 1
    _, log = train("dgpo", reward=half, **BATCH)
    assert "credit/dropped_groups" not in log[0]


def test_resampling_fills_the_batch_with_groups_that_vary(train, monkeypatch):
    calls = []
    count = statistics.compute_statistics
    monkeypatch.setattr(statistics, "compute_statistics", lambda *a: calls.append(0) or count(*a))
    trainer, log = train("dgpo", dynamic_sampling="resample", reward=half, **BATCH)
    prompts, completions, rewards, advantages = table(trainer)
    assert all(int(prompt[:-1]) % 2 for prompt in prompts)
    assert log[0]["credit/dropped_groups"] == 0
    assert log[0]["credit/sampling_rounds"] > 1
    assert log[0]["credit/generated_groups"] > 8
    assert len(calls) == 1
    groups = np.arange(8).repeat(4)
    expected = credit.GRPO()(credit.Rollouts(rewards.astype("f4"), groups, np.ones((32, 1), bool)))
    np.testing.assert_allclose(advantages, expected.advantages[:, 0], atol=1e-5)
    batch = trainer._buffered_inputs[0]
    ids = batch["completion_ids"] * batch["completion_mask"]
    assert sorted(trainer._tokenizer.batch_decode(ids, skip_special_tokens=True)) == sorted(completions)
    ids = batch["prompt_ids"] * batch["prompt_mask"]
    assert sorted(trainer._tokenizer.batch_decode(ids, skip_special_tokens=True)) == sorted(prompts)


def test_rounds_of_different_widths_are_padded_alike(make_trainer, monkeypatch):
    widths = []
    merge = sampling._merge_outputs

    def spy(trainer, outputs, rows):
        widths.append({output["prompt_ids"].shape[1] for output in outputs})
        return merge(trainer, outputs, rows)

    monkeypatch.setattr(sampling, "_merge_outputs", spy)
    trainer = make_trainer("dapo", dynamic_sampling="resample", reward=half, steps_per_generation=2, **BATCH)
    trainer.model.train()
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert widths == [{3, 13}]
    for batch in trainer._buffered_inputs:
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        with torch.no_grad():
            logits = trainer.model(input_ids=ids, attention_mask=seen).logits[:, :-1]
        log_probs = credit.selected_log_probs(logits, ids[:, 1:])[:, -batch["completion_ids"].shape[1] :]
        difference = (log_probs - batch["old_per_token_logps"]) * batch["completion_mask"]
        assert difference.abs().max() < 1e-5
        assert batch["num_items_in_batch"] == sum(
            b["completion_mask"].sum() for b in trainer._buffered_inputs
        )


def test_rounds_are_bounded_and_a_batch_without_signal_does_no_harm(train):
    settings = BATCH | {"max_sampling_rounds": 3, "max_steps": 2}
    trainer, log = train("dapo", dynamic_sampling="resample", reward=flat, **settings)
    for entry in log:
        assert entry["credit/sampling_rounds"] == 3
        assert entry["credit/dropped_groups"] == 1
        assert entry["grad_norm"] == 0
        assert math.isfinite(entry["loss"])
    assert trainer._buffered_inputs[0]["num_items_in_batch"] == 0


def test_statistics_of_nothing_are_no_error(train):
    _, log = train("dgpo", dynamic_sampling="filter", reward=flat, **BATCH)
    assert log[0]["grad_norm"] == 0


def test_evaluation_takes_its_prompts_as_they_are(make_trainer):
    calls = []

    def counted(prompts, completions, **_):
        calls.append(prompts)
        return flat(completions)

    trainer = make_trainer("dapo", dynamic_sampling="resample", reward=counted, per_device_eval_batch_size=8)
    metrics = trainer.evaluate(trainer.train_dataset.select(range(2)))
    assert len(calls) == 1
    assert not [name for name in metrics if "rounds" in name or "dropped" in name]
    assert trainer.credit.prompts.drawn == 0


def test_the_stream_of_prompts_passes_over_the_data_again_and_again():
    stream = PromptStream(7, seed=3, shuffle=True)
    first, second = stream.take(7), stream.take(7)
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second
    again = PromptStream(7, seed=3, shuffle=True)
    again.drawn = 5
    assert again.take(4) == [*first[5:], *second[:2]]
    assert PromptStream(3, seed=3, shuffle=False).take(5) == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dynamic_sampling": "more"}, "expected none, filter, resample"),
        ({"dynamic_sampling": "resample", "max_sampling_rounds": 0}, "expected a whole number, 1 or more"),
        ({"estimator": None, "dynamic_sampling": "filter"}, "advantage_estimator is not"),
    ],
)
def test_wrong_settings_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(model="/nowhere", **({"estimator": "dapo"} | settings))


def test_groups_across_processes_cannot_be_resampled():
    config = CreditGRPOConfig(
        "/tmp", use_cpu=True, bf16=False, advantage_estimator="dapo", dynamic_sampling="resample"
    )
    config.per_device_train_batch_size, config.num_generations = 6, 4  # as two processes of 6 could have it
    with pytest.raises(ValueError, match="6 is not a multiple of num_generations=4"):
        options.refuse(credit.DAPO(), config)


def test_data_without_an_index_cannot_be_resampled(make_trainer):
    with pytest.raises(ValueError, match="iterable dataset"):
        make_trainer(
            "dapo", dynamic_sampling="resample", dataset=PROMPTS.to_iterable_dataset(), model="/nowhere"
        )
