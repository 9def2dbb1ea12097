"""Completions with the credit of their tokens, written while training, and shown in verl's loggers."""

import math
import re

import pyarrow.parquet
import pytest
import torch
import witness
from advantage_calls import MASKS, nest, run_step, scores_of
from recorded_texts import EVERY_SECOND, GRPO, PROMPTS, REWARDS, TOKENIZER, answer, last, number, pad, spread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from verl.utils.tracking import Tracking
from wandb_files import read_history

import credit
from credit import lens
from credit.adapters.verl import settings


@pytest.fixture
def step(monkeypatch, configured, tmp_path):
    """A step of a V1 trainer, with the log-probs of verl's own reference: the completions that it recorded."""

    def run(*overrides, rewards=REWARDS, **attributes):
        columns = scores_of(last(rewards)) | {
            "prompts": nest(number(text) for text in PROMPTS),
            "responses": nest(number(answer(row)) for row in range(len(MASKS))),
            "ref_log_prob": nest(spread(0.5)),
            "entropy": nest([-row for row in spread(0.25)]),
        }
        given = {"tokenizer": TOKENIZER, "local_trigger_step": 0, "_vocabulary_size": 16}
        given |= {"logger": Tracking("p", "e", [])} | attributes
        place = f"trainer.default_local_dir={tmp_path}"
        run_step(monkeypatch, configured, MASKS, [], columns, place, *overrides, **given)
        path = tmp_path / "credit.jsonl"
        return list(lens.read(path)) if path.exists() else []

    return run


def test_all_that_verl_knows_is_recorded_also_what_the_estimator_does_not_read(step):
    lines = step(GRPO, EVERY_SECOND)
    assert [line.group for line in lines] == [0, 0, 1, 1]
    assert [line.valid for line in lines] == [True, True, False, True]
    assert [line.turns[-1] for line in lines] == [1, 1, 0, 1]
    given = credit.Rollouts(torch.tensor(REWARDS), torch.tensor([0, 0, 1, 1]), pad(MASKS))
    result = credit.GRPO()(given)
    for row, line in enumerate(lines):
        length = len(MASKS[row])
        assert (line.prompt, "".join(line.tokens)) == (PROMPTS[row], answer(row))
        assert line.log_probs == [-1.0] * length
        assert line.reference_log_probs == pytest.approx(spread(0.5)[row].tolist())
        assert line.normalized_entropy == pytest.approx((-spread(0.25)[row] / math.log(16)).tolist())
        assert line.deviation is None  # of which the sampled tokens' is a bound
        assert (line.step, line.progress, line.estimator["name"]) == (1, 0.25, "grpo")
        assert line.weights == result.weights[row, :length].tolist()
        assert line.advantages == pytest.approx(result.advantages[row, :length].tolist())
    assert lines[0].advantages[0] > 0
    assert not any(lines[2].advantages)


def test_a_last_group_that_does_not_fit_stays_away_and_so_does_padding(step):
    lines = step(GRPO, EVERY_SECOND, "+algorithm.credit.record_completions=3", rewards=[1.0, 0.0, 0.0, 2.0])
    assert [line.prompt for line in lines] == PROMPTS[:2]
    lines = step(GRPO, EVERY_SECOND, padding=[0, 3], rewards=[1.0, 0.0, 0.0, 2.0])[len(lines) :]
    assert ["".join(line.tokens) for line in lines] == [answer(1), answer(2)]


def test_the_first_batch_of_every_second_step_is_recorded(step):
    for number_of_step in range(1, 5):
        for batch in range(2):
            lines = step(GRPO, EVERY_SECOND, global_steps=number_of_step, local_trigger_step=batch)
    assert [line.step for line in lines] == [1] * 4 + [3] * 4


def test_the_path_is_the_users(step, tmp_path):
    path = tmp_path / "elsewhere" / "records.jsonl"
    assert step(GRPO, EVERY_SECOND, f"+algorithm.credit.record_path={path}") == []
    assert len(list(lens.read(path))) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{record_steps:0}", "algorithm.credit.record_steps is 0; expected a whole number, 1 or more"),
        ("{record_steps:often}", "algorithm.credit.record_steps is 'often'; expected a whole number"),
        ("{record_steps:true}", "algorithm.credit.record_steps is True; expected a whole number"),
        ("{record_steps:2.5}", "algorithm.credit.record_steps is 2.5; expected a whole number"),
        ("{record_steps:1,record_path:''}", "algorithm.credit.record_path is ''; expected a file's path"),
        ("{record_steps:1,record_path:7}", "algorithm.credit.record_path is 7; expected a file's path"),
        (
            "{record_steps:1,record_completions:0}",
            "algorithm.credit.record_completions is 0; expected a whole number, 1 or more",
        ),
        (
            "{record_path:a.jsonl}",
            "record_path is set, and nothing is recorded; set algorithm.credit.record_steps, or leave it out",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(configured, given, message):
    with pytest.raises(ValueError, match=message):
        settings.parse_settings(configured(GRPO, f"+algorithm.credit={given}").algorithm)


def test_settings_that_are_null_are_as_good_as_none(configured):
    config = configured(
        GRPO, "+algorithm.credit={record_steps:null,record_completions:null,record_path:null}"
    )
    assert settings.parse_settings(config.algorithm) == settings.parse_settings(configured(GRPO).algorithm)


def test_drift_alignment_is_logged_where_both_models_run(monkeypatch, configured):
    overrides = ["algorithm.adv_estimator=credit_dgpo", "+algorithm.credit={divergence:binary,kappa:0}"]
    choice = settings.parse_settings(configured(*overrides).algorithm)._replace(source="passes")
    reference, rewards = spread(0.5), [1.0, 0.0, 0.5, 2.0]
    columns = scores_of(last(rewards)) | {"ref_log_prob": nest(reference)}
    given = {"credit_choice": choice, "_vocabulary_size": 16}
    _, metrics = run_step(monkeypatch, configured, MASKS, [], columns, *overrides, **given)
    mask = pad(MASKS)
    log_probs, reference = -mask.float(), pad(reference)
    fields = {"log_probs": log_probs, "reference_log_probs": reference}
    fields["deviation"] = credit.binary_deviation(log_probs, reference)
    whole = credit.Rollouts(torch.tensor(rewards), torch.tensor([0, 0, 1, 1]), mask, **fields)
    expected = choice.estimator(whole).metrics["drift_alignment"].item()
    assert metrics["credit/drift_alignment"] == pytest.approx(expected, abs=1e-6)
    assert abs(expected) > 0.01


def test_a_run_records_what_its_estimator_gave(recorded_run):
    folder, log, _ = recorded_run
    lines = list(lens.read(folder / "checkpoints" / "credit.jsonl"))
    assert [line.step for line in lines] == [1] * 16 + [3] * 16
    prompts = pyarrow.parquet.read_table(folder / "train.parquet")["prompt"].to_pylist()
    known = {prompt["content"] for (prompt,) in prompts}
    for line in lines:
        assert line.prompt in known
        text = re.sub("<[a-z]+>", "", "".join(line.tokens))  # which the reward function got
        assert line.reward == witness.low_digits(None, text, None)["score"]
    for first, step in enumerate((1, 3)):
        batch = lines[16 * first : 16 * (first + 1)]
        fields = {
            name: pad([torch.tensor(getattr(line, name)) for line in batch])
            for name in ("mask", "log_probs", "reference_log_probs", "deviation", "normalized_entropy")
        }
        rewards, groups = (
            torch.tensor([getattr(line, name) for line in batch]) for name in ("reward", "group")
        )
        settings_of_dgpo = {name: batch[0].estimator[name] for name in credit.DGPO.model_fields}
        given = credit.Rollouts(rewards=rewards, groups=groups, **fields)
        result = credit.parse(settings_of_dgpo | {"name": "dgpo"})(given)
        for name in ("weights", "advantages"):
            recorded = pad([torch.tensor(getattr(line, name)) for line in batch])
            torch.testing.assert_close(recorded, getattr(result, name), rtol=1e-5, atol=1e-5)
            assert recorded.std() > 0
        for name in ("weight_std", "deviation_mean", "advantage_std"):
            assert log[step - 1][f"credit/{name}"] == pytest.approx(result.metrics[name].item(), abs=1e-5)


def test_a_run_shows_them_in_its_loggers_and_loses_no_metric(recorded_run):
    folder, log, _ = recorded_run
    lines = list(lens.read(folder / "checkpoints" / "credit.jsonl"))
    of_steps = {step: [line for line in lines if line.step == step] for step in (1, 3)}
    rows = {row["_step"]: row for row in read_history(folder)}
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    for step, entry in enumerate(log, start=1):
        assert {name: rows[step][name] for name in entry} == pytest.approx(entry)
        assert entry["actor/lr"] == pytest.approx(events.Scalars("actor/lr")[step - 1].value)
    assert {step for step, row in rows.items() if "credit/lens" in row} == set(of_steps)
    shown = {
        each.step: each.tensor_proto.string_val[0] for each in events.Tensors("credit/lens/text_summary")
    }
    assert shown == {step: lens.format_markdown(each).encode() for step, each in of_steps.items()}
    for step, each in of_steps.items():
        (page,) = folder.glob(f"**/{rows[step]['credit/lens']['path']}")
        assert page.read_text() == lens.page(each, f"step {step}")
