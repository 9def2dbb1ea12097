"""Completions with the credit of their tokens, written while TRL trains and read back."""

import re

import numpy as np
import pytest
from datasets import Dataset

import credit
from credit import lens


def test_every_kth_step_leaves_whole_groups_with_all_their_numbers(train, tmp_path):
    settings = {"max_steps": 5, "record_steps": 2, "record_completions": 6}  # one group of 4, and not two
    trainer, log = train("dgpo", {"tau": 0.01}, **settings)
    lines = list(lens.read(tmp_path / "out/credit.jsonl"))
    assert [line.step for line in lines] == [1] * 4 + [3] * 4 + [5] * 4
    last = lines[-4:]
    assert [line.group for line in last] == [0] * 4
    prompts, texts = (list(trainer._logs[name])[:4] for name in ("prompt", "completion"))
    assert [line.prompt for line in last] == prompts
    assert [re.sub("<(pad|eos|unk)>", "", "".join(line.tokens)) for line in last] == texts
    rewards, advantages = (
        list(c)[:4] for c in (trainer._logs["rewards"]["digits"], trainer._logs["advantages"])
    )
    assert [line.reward for line in last] == pytest.approx(rewards)
    assert [line.advantage for line in last] == pytest.approx(advantages, abs=1e-6)
    for line in last:
        assert credit.parse(line.estimator) == trainer.credit_estimator
        assert max(line.log_probs) < 0
        assert max(line.reference_log_probs) < 0
        score = np.array(line.deviation) * np.array(line.normalized_entropy)
        weights = np.exp(score / 0.01) / np.exp(score / 0.01).mean()
        np.testing.assert_allclose(line.weights, weights, rtol=1e-3)
        np.testing.assert_allclose(line.advantages, line.advantage * weights, rtol=1e-3, atol=1e-6)
    assert np.std(last[0].weights) > 0


def test_a_group_is_written_whole_and_a_batch_once(train, tmp_path):
    path = tmp_path / "elsewhere/sight.jsonl"
    settings = {"steps_per_generation": 2, "max_steps": 4, "record_path": str(path)}
    train("grpo", record_steps=1, record_completions=1, **settings)
    lines = list(lens.read(path))
    assert [line.step for line in lines] == [1] * 4 + [3] * 4
    assert lines[0].deviation is None


def test_columns_of_the_data_set_are_recorded_if_a_line_can_hold_them(train, tmp_path):
    numbers = list(range(100))
    columns = {"answer": [{"value": -number} for number in numbers], "step": numbers, "raw": [b"1"] * 100}
    data = Dataset.from_dict({"prompt": [f"{number}>" for number in numbers], **columns})
    train("grpo", dataset=data, max_steps=1, record_steps=1)
    lines = list(lens.read(tmp_path / "out/credit.jsonl"))
    assert [line.model_extra for line in lines] == [
        {"answer": {"value": -int(line.prompt[:-1])}} for line in lines
    ]
    assert len({line.prompt for line in lines}) == 2


def test_groups_left_out_are_recorded_as_such(train, tmp_path):
    def flat(completions, **_):
        return [0.5] * len(completions)

    train("dapo", reward=flat, max_steps=1, record_steps=1)
    lines = list(lens.read(tmp_path / "out/credit.jsonl"))
    assert not any(line.valid for line in lines)
    assert all(line.tokens for line in lines)


def test_evaluation_leaves_no_records(make_trainer, tmp_path):
    trainer = make_trainer("dgpo", record_steps=1, per_device_eval_batch_size=4)
    trainer.evaluate(trainer.train_dataset.select(range(1)))
    assert not (tmp_path / "out/credit.jsonl").exists()


@pytest.mark.parametrize("given", [{"record_steps": 1}, {"record_path": "a.jsonl"}])
def test_records_are_of_an_estimator(make_trainer, given):
    (name,) = given
    with pytest.raises(ValueError, match=f"{name} is set, but advantage_estimator is not"):
        make_trainer(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"record_steps": True}, "record_steps is True; expected a whole number, 1 or more"),
        ({"record_steps": 2.5}, "record_steps is 2.5; expected a whole number, 1 or more"),
        ({"record_completions": 0}, "record_completions is 0; expected a whole number, 1 or more"),
        ({"record_steps": 1, "record_path": ""}, "record_path is ''; expected a file's path"),
        (
            {"record_path": "a.jsonl"},
            "record_path is set, and nothing is recorded; set record_steps, or leave it out",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make_trainer, given, message):
    with pytest.raises(ValueError, match=message):
        make_trainer("grpo", **given)
