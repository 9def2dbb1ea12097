"""Completions in the trackers that a run reports to, read back from what these wrote without a network."""

import os
import shutil

import pytest
import tensorboard.plugin_util
import wandb
from made_completions import HOSTILE, make_completion
from rendered import TAGS, Rendered
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trackio.sqlite_storage import SQLiteStorage
from trackio.utils import MEDIA_DIR
from wandb.sdk.data_types._private import MEDIA_TMP
from wandb_files import read_history

from credit import lens
from credit.lens.headings import escape_token

RECORDED = [1, 4]


@pytest.fixture
def report(train, tmp_path, monkeypatch):
    """Trains with a tracker, and returns the metrics that TRL logged, by step, and the completions recorded."""

    def run(tracker):
        settings = {"max_steps": 4, "record_steps": 3, "record_completions": 4, "project": tmp_path.name}
        _, log = train("dgpo", {"tau": 0.01}, report_to=tracker, **settings)
        wandb.finish()
        wandb.teardown()  # its file is whole when its process has ended
        lines = list(lens.read(tmp_path / "out/credit.jsonl"))
        recorded = {step: [line for line in lines if line.step == step] for step in RECORDED}
        metrics = {
            each["step"]: {f"train/{name}": value for name, value in each.items() if name != "step"}
            for each in log
        }
        assert list(metrics) == [1, 2, 3, 4]
        return metrics, recorded

    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    os.makedirs(tmp_path / "WANDB_DIR")
    return run


def check_metrics(rows, metrics):
    """Each step's metrics are one row at that step."""
    found = {row["train/global_step"]: row for row in rows if "train/loss" in row}
    for step, each in metrics.items():
        assert {name: found[step].get(name) for name in each} == pytest.approx(each, rel=1e-6)


def pages(recorded):
    return {step: lens.page(lines, f"step {step}") for step, lines in recorded.items()}


def test_wandb_has_the_page_at_its_step_and_every_metric(report, tmp_path):
    metrics, recorded = report("wandb")
    rows = read_history(tmp_path / "WANDB_DIR")
    check_metrics(rows, metrics)
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    (files,) = (tmp_path / "WANDB_DIR").glob("wandb/offline-run-*/files")
    found = {row["train/global_step"]: row["credit/lens"] for row in rows if "credit/lens" in row}
    assert {step: (files / each["path"]).read_text("utf-8") for step, each in found.items()} == pages(
        recorded
    )


def test_trackio_has_the_page_at_its_step_and_every_metric(report, tmp_path):
    metrics, recorded = report("trackio")
    (run,) = SQLiteStorage.get_runs(tmp_path.name)
    rows = SQLiteStorage.get_logs(tmp_path.name, run)
    check_metrics(rows, metrics)
    shown = [row for row in rows if "credit/lens" in row]
    assert [row["step"] for row in shown] == [row["train/global_step"] for row in shown] == RECORDED
    files = [MEDIA_DIR / row["credit/lens"]["file_path"] for row in shown]
    assert [file.read_text("utf-8") for file in files] == list(pages(recorded).values())


def test_tensorboard_has_the_text_at_its_step_and_every_metric(report, tmp_path):
    metrics, recorded = report("tensorboard")
    events = EventAccumulator(str(tmp_path / "TENSORBOARD_LOGGING_DIR")).Reload()
    rows = [
        {"train/global_step": step, **{name: events.Scalars(name)[step - 1].value for name in metrics[step]}}
        for step in metrics
    ]
    check_metrics(rows, metrics)
    found = events.Tensors("credit/lens/text_summary")
    assert [each.step for each in found] == RECORDED
    for each, lines in zip(found, recorded.values(), strict=True):
        (text,) = each.tensor_proto.string_val
        shown = Rendered(tensorboard.plugin_util.markdown_to_safe_html(text))
        expected = [part for line in lines for part in (f"Prompt: {line.prompt}", "".join(line.tokens))]
        assert shown.paragraphs[2:] == expected


def test_a_tracker_that_fails_is_named_and_training_goes_on(report, tmp_path):
    """As when the folder of wandb's temporary files has been cleaned up during a long run."""
    shutil.rmtree(MEDIA_TMP.name)
    try:
        with pytest.warns(
            UserWarning, match="could not show the completions as credit/lens in wandb: FileNotFound"
        ):
            metrics, recorded = report("wandb")
    finally:
        os.makedirs(MEDIA_TMP.name, exist_ok=True)
    assert [len(lines) for lines in recorded.values()] == [4, 4]
    rows = read_history(tmp_path / "WANDB_DIR")
    check_metrics(rows, metrics)
    assert not any("credit/lens" in row for row in rows)


def test_hostile_text_stays_text_in_tensorboard():
    text = lens.format_markdown([make_completion(HOSTILE, [2.0, 0.5] * 9)])
    shown = Rendered(tensorboard.plugin_util.markdown_to_safe_html(text))
    assert shown.tags == TAGS
    assert shown.attributes == []
    assert shown.paragraphs[2:] == [escape_token("".join(HOSTILE))]
    assert len(shown.cells) == 9 * 5
