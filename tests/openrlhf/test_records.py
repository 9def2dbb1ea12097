"""Completions with the credit of their tokens, written while training, and in OpenRLHF's own loggers."""

from types import SimpleNamespace

import openrlhf_cases as cases
import pytest
import tiny_model
import torch
import wandb
from openrlhf.utils.logging_utils import WandbLogger
from openrlhf_records import check_lines, keep_wandb_offline
from wandb_files import read_history, read_step_metrics

import credit
from credit import lens
from credit.adapters.openrlhf.settings import Choice
from credit.adapters.openrlhf.steps import Step
from credit.adapters.openrlhf.trainer import CreditExperienceMaker

NAME = "--algo.advantage.estimator"
BOTH = ("log_probs", "reference_log_probs")


@pytest.fixture
def maker(parse, tmp_path):
    """OpenRLHF's experience maker with an estimator of ours, which records into the test's folder."""

    def make(*flags):
        args = parse(NAME, *flags, "--ckpt.output_dir", tmp_path / "trained")
        made = cases.maker(args, CreditExperienceMaker)
        made.tokenizer, made.credit_progress = tiny_model.character_tokenizer(), 0.25
        return made

    return make


def make_experiences(seed=0, **shape):
    """Experiences as OpenRLHF's sampler leaves them, padded on the right."""
    made = cases.experiences(seed, **shape)
    for experience in made:
        rows, width = experience.sequences.shape
        last = (experience.action_mask * torch.arange(1, width)).amax(dim=1)
        experience.attention_mask = (torch.arange(width) <= last[:, None]).long()
        experience.prompts, experience.images = ["a prompt"] * rows, [None] * rows
        experience.labels = [f"label {number}" for number in experience.index]
    return made


def compute(maker, made, step=1, statistics=None, wandb_logger=None):
    """The experiences with advantages, of the step of that number."""
    maker.credit_step = Step(step, SimpleNamespace(wandb_logger=wandb_logger, tensorboard_logger=None))
    for experience, fields in zip(made, statistics or [{}] * len(made), strict=True):
        experience.credit = fields
    return maker.compute_advantages_and_returns(made)


@pytest.mark.parametrize("holes", [False, True])
def test_whole_groups_are_recorded_with_all_their_numbers(maker, tmp_path, holes):
    made = make_experiences(holes=holes)
    found = [
        fields | {name: -torch.rand(experience.action_mask.shape) for name in BOTH}
        for fields, experience in zip(cases.statistics(made), made, strict=True)
    ]
    ours = maker("dgpo", "--credit.tau", "0.1", "--credit.record_steps", 1, "--credit.record_completions", 11)
    compute(ours, made, statistics=found)
    lines = list(lens.read(tmp_path / "trained/credit.jsonl"))
    check_lines(lines, made, found, 11)
    assert [line.row for line in lines] == list(range(8))
    assert {line.progress for line in lines} == {0.25}
    assert max(abs(weight - 1) for line in lines for weight in line.weights) > 0.1
    assert credit.parse(lines[0].estimator) == credit.DGPO(tau=0.1)
    numbers = [number for experience in made for number in experience.index if number // 4 == lines[0].group]
    assert [line.label for line in lines[:4]] == [f"label {number}" for number in numbers]


def test_every_second_step_is_recorded_with_one_group_at_least(maker, tmp_path):
    path = tmp_path / "elsewhere/records.jsonl"
    flags = ["--credit.record_steps", 2, "--credit.record_completions", 1, "--credit.record_path", path]
    ours = maker("grpo", *flags)
    for step in (1, 2, 3, 4, 7):
        compute(ours, make_experiences(step), step)
    assert [line.step for line in lens.read(path)] == [1] * 4 + [3] * 4 + [7] * 4
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize("label", [{"value": 7}, ["7", None], None, 0])
def test_labels_are_recorded_as_they_are(maker, tmp_path, label):
    made = make_experiences()
    for experience in made:
        experience.labels = [label] * len(experience.index)
    compute(maker("grpo", "--credit.record_steps", 1), made)
    assert {repr(line.label) for line in lens.read(tmp_path / "trained/credit.jsonl")} == {repr(label)}


@pytest.mark.parametrize("label", ["", b"7"])  # none at all, and one that a line cannot hold
def test_no_other_labels_are_recorded(maker, tmp_path, label):
    made = make_experiences()
    for experience in made:
        experience.labels = [label] * len(experience.index)
    compute(maker("grpo", "--credit.record_steps", 1), made)
    lines = list(lens.read(tmp_path / "trained/credit.jsonl"))
    assert [line.model_extra for line in lines] == [{}] * 16


def test_rows_that_take_no_part_are_recorded_as_such(maker, tmp_path):
    (made,) = make_experiences(prompts=1, sizes=[4])
    made.rewards = torch.tensor([float("nan"), 1.0, 0.0, 0.5])
    made.action_mask[1] = 0
    compute(maker("grpo", "--credit.record_steps", 1), [made])
    lines = list(lens.read(tmp_path / "trained/credit.jsonl"))
    assert [line.valid for line in lines] == [False, False, True, True]
    assert lines[0].reward is None
    assert len(lines[0].tokens) == sum(lines[0].mask) > 0  # although OpenRLHF's loss leaves the row out
    assert lines[1].tokens == []
    whole = made.sequences[1][made.attention_mask[1].bool()]
    assert lines[1].prompt == tiny_model.character_tokenizer().decode(whole)


def test_a_batch_without_any_token_is_recorded(maker, tmp_path):
    (made,) = make_experiences(prompts=1, sizes=[4])
    made.action_mask[:] = 0
    compute(maker("dgpo", "--credit.record_steps", 1), [made], statistics=cases.statistics([made]))
    assert [line.tokens for line in lens.read(tmp_path / "trained/credit.jsonl")] == [[]] * 4


def test_log_probs_of_openrlhfs_own_passes_are_recorded_for_estimators_that_read_none(maker, tmp_path):
    made = make_experiences()
    for experience in made:
        experience.action_log_probs = -torch.rand(experience.action_mask.shape)
    compute(maker("grpo", "--credit.record_steps", 2), made)
    lines = list(lens.read(tmp_path / "trained/credit.jsonl"))
    check_lines(lines, made, [{"log_probs": e.action_log_probs} for e in made], 16)
    assert all(line.reference_log_probs is None for line in lines)
    assert "credit/drift_alignment" not in made[0].info


def test_drift_alignment_is_logged_where_openrlhf_runs_its_reference(maker):
    """A response is as probable as its reward is high, under one policy, and the reverse under the other."""
    found = {}
    for sign in (1.0, -1.0):
        (made,) = make_experiences(prompts=1, sizes=[4])
        made.rewards = torch.tensor([0.0, 1.0, 0.0, 1.0])
        shape = made.action_mask.shape
        made.base_action_log_probs = torch.full(shape, -2.0)
        made.action_log_probs = -2.0 + sign * (2 * made.rewards - 1)[:, None].expand(shape)
        compute(maker("grpo"), [made])
        found[sign] = made.info["credit/drift_alignment"][0].item()
    assert 0.5 < found[1.0] == -found[-1.0]


@pytest.fixture
def logging_maker(maker, tmp_path, monkeypatch):
    """The same with OpenRLHF's logger of Weights & Biases, offline."""
    for name, value in keep_wandb_offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    ours = maker("grpo", "--credit.record_steps", 1, "--logger.wandb.key", "offline")
    yield ours, WandbLogger(ours.args)
    wandb.teardown()


def test_wandb_shows_the_page_at_the_training_step(logging_maker, tmp_path):
    ours, logger = logging_maker
    for step in (1, 2):
        logger.log_train(step, {"loss": 1.0})
        compute(ours, make_experiences(step), step, wandb_logger=logger)
    logger.close()
    wandb.teardown()  # its file is whole when its process has ended
    assert read_step_metrics(tmp_path)["credit/lens"] == "train/global_step"
    rows = read_history(tmp_path)
    assert [row["train/global_step"] for row in rows if "credit/lens" in row] == [1, 2]
    assert [row["train/global_step"] for row in rows if "train/loss" in row] == [1, 2]


def test_a_tracker_that_fails_ends_no_training(logging_maker, tmp_path):
    ours, logger = logging_maker
    logger.close()
    with pytest.warns(
        UserWarning, match="could not show the completions as credit/lens in wandb: .* Training goes on"
    ):
        compute(ours, make_experiences(), wandb_logger=logger)
    assert len(list(lens.read(tmp_path / "trained/credit.jsonl"))) == 16


def test_workers_compute_what_is_compared_and_recorded():
    assert set(BOTH) < set(Choice(credit.DGPO()).scored)
    assert "log_probs" not in Choice(credit.TopEntropy()).scored
    recorded = Choice(credit.TopEntropy(), record_steps=1).scored
    assert "log_probs" in recorded
    assert "deviation" not in recorded  # which would take a reference
    assert Choice(credit.GRPO(), record_steps=1).scored == ()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--credit.record_steps", "0"], "--credit.record_steps is 0; expected a whole number, 1 or more"),
        (["--credit.record_steps", "often"], "argument --credit.record_steps: invalid int value: 'often'"),
        (
            ["--credit.record_steps", "1", "--credit.record_completions", "-1"],
            "--credit.record_completions is -1; expected a whole number, 1 or more",
        ),
        (
            ["--credit.record_path", "a.jsonl"],
            "--credit.record_path is set, and nothing is recorded; set --credit.record_steps, or leave it out",
        ),
        (["--credit.record_steps", "1", "--credit.record_steps", "2"], "is given twice, 1 and 2"),
    ],
)
def test_wrong_settings_are_refused(parse, capsys, flags, message):
    with pytest.raises(SystemExit):
        parse(NAME, "grpo", *flags)
    assert message in " ".join(capsys.readouterr().err.split())


def test_records_are_of_an_estimator_of_ours(parse, capsys):
    with pytest.raises(SystemExit):
        parse(NAME, "group_norm", "--credit.record_steps", "1")
    assert (
        "--credit.record_steps is set, but --algo.advantage.estimator group_norm" in capsys.readouterr().err
    )
