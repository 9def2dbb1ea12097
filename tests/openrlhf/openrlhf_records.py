"""Recorded completions against the experiences that they were made of."""

import pytest
import tiny_model
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import read_history

from credit import TokenStatistics, lens
from credit.adapters.trackers import KEY

TAKEN = ("sequences", "attention_mask", "action_mask", "rewards", "advantages", "index")


def keep_wandb_offline(folder):
    """The environment in which wandb writes into that folder alone, and asks no server."""
    places = {f"WANDB_{name}DIR": str(folder) for name in ("", "CACHE_", "DATA_", "CONFIG_")}
    return places | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def check_lines(lines, experiences, statistics, most):
    """That the lines of one step are the first groups, of four, with the credit of their experiences.

    The experiences are mappings or have attributes; the statistics are those of the workers, [B, A] by name.
    """
    rows = []
    for experience, found in zip(experiences, statistics, strict=True):
        fields = experience if isinstance(experience, dict) else vars(experience)
        fields = {name: fields[name] for name in TAKEN} | {
            name: found[name] for name in TokenStatistics._fields if name in found
        }
        rows += [{name: each[i] for name, each in fields.items()} for i in range(len(fields["index"]))]
    groups = sorted({row["index"] // 4 for row in rows})[: max(most // 4, 1)]
    chosen = [row for group in groups for row in rows if row["index"] // 4 == group]
    assert len(lines) == len(chosen) > 0
    for line, row in zip(lines, chosen, strict=True):
        check_line(line, row)


def check_line(line, row):
    mask, tokenizer = row["action_mask"].bool(), tiny_model.character_tokenizer()
    first, last = mask.nonzero()[[0, -1], 0].tolist()
    span, ids = slice(first, last + 1), row["sequences"]
    assert "".join(line.tokens) == tokenizer.decode(ids[first + 1 : last + 2])
    assert len(line.tokens) == last + 1 - first
    assert line.prompt == tokenizer.decode(ids[: first + 1][row["attention_mask"][: first + 1].bool()])
    assert line.mask == mask[span].long().tolist()
    assert line.group == row["index"] // 4
    assert line.reward == pytest.approx(row["rewards"].item())
    assert line.valid
    assert line.advantages == pytest.approx(row["advantages"][span].tolist(), rel=1e-6, abs=1e-9)
    product = [line.advantage * weight for weight in line.weights]
    assert line.advantages == pytest.approx(product, rel=1e-4, abs=1e-6)
    for name in TokenStatistics._fields:
        if name in row:
            expected = torch.where(mask, row[name], 0.0)[span]
            assert getattr(line, name) == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-9), name


def check_trackers(folder, recorded, logged):
    """That both trackers show the completions at their steps, and all that OpenRLHF logged itself.

    Args:
        recorded: the lines of each step.
        logged: what OpenRLHF printed of its steps, from 1.
    """
    rows = read_history(folder)
    pages = {row["train/global_step"]: row[KEY] for row in rows if KEY in row}
    (files,) = folder.glob("wandb/offline-run-*/files")
    assert {step: (files / page["path"]).read_text("utf-8") for step, page in pages.items()} == {
        step: lens.page(lines, f"step {step}") for step, lines in recorded.items()
    }
    (events,) = map(EventAccumulator, map(str, folder.glob("tensorboard/*")))
    events.Reload()
    texts = {
        text.step: text.tensor_proto.string_val[0].decode() for text in events.Tensors(f"{KEY}/text_summary")
    }
    assert texts == {step: lens.format_markdown(lines) for step, lines in recorded.items()}
    metrics = {row["train/global_step"]: row for row in rows if KEY not in row and "train/global_step" in row}
    assert list(metrics) == list(range(1, len(logged) + 1))
    for step, own in enumerate(logged, start=1):
        for name, value in own.items():
            assert metrics[step][f"train/{name}"] == pytest.approx(value, rel=1e-6), name
            assert events.Scalars(f"train/{name}")[step - 1].value == pytest.approx(value, rel=1e-6), name
    assert sum("train/generated_samples" in row for row in rows) == len(logged)
