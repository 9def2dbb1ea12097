"""Completions with the credit of their tokens, written while training for the views of credit.lens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import credit
from credit import lens
from credit.adapters.prompts import write_prompt
from credit.adapters.records import CONTEXT, select_groups, serves_step
from credit.adapters.trackers import log_records
from credit.adapters.trl import recorded_columns
from credit.adapters.trl.processes import gather_rows
from credit.adapters.trl.trackers import find_logs

Tensor = torch.Tensor


def is_recording_step(trainer: Any) -> bool:
    """Whether the batch just generated serves one of the steps 0, record_steps, 2 record_steps, ..."""
    steps = trainer.args.record_steps
    return steps is not None and serves_step(trainer, steps)


def write_records(
    trainer: Any,
    output: dict[str, Tensor],
    given: credit.Rollouts,
    result: credit.Credit,
    generated: Sequence[recorded_columns.Row],
) -> None:
    """Appends the batch's first groups to the file, and shows them in the trackers that the run reports to.

    Every process has to call this; the first one writes.
    """
    args, padding = trainer.args, trainer._tokenizer.pad_token_id
    before = gather_rows(trainer.accelerator, output["prompt_ids"][:, -CONTEXT:], padding, pad_first=True)
    completions = gather_rows(trainer.accelerator, output["completion_ids"], padding)
    columns = recorded_columns.take_columns(output, generated)
    if not trainer.accelerator.is_main_process:
        return
    rows, given, result = select_groups(given, result, args.record_completions)
    ids = [_strip_padding(*row, padding) for row in zip(completions[rows], given.mask, strict=True)]
    texts = list(trainer._logs["prompt"])[-len(completions) :]
    step = trainer.state.global_step + 1
    lines = lens.format_records(
        tokens=lens.text_pieces(trainer._tokenizer, ids, before[rows]),
        rollouts=given,
        result=result,
        estimator=trainer.credit.estimator,
        prompts=[write_prompt(texts[row]) for row in rows.tolist()],
        step=step,
        extra={name: [values[row] for row in rows.tolist()] for name, values in columns.items()},
    )
    lens.append_records(args.record_path or Path(args.output_dir) / "credit.jsonl", lines)
    log_records(lines, find_logs(trainer, step))


def _strip_padding(ids: Tensor, mask: Tensor, padding: int) -> list[int]:
    """The ids up to the last that is not padding or is in the mask, since a response may end in padding."""
    places = torch.nonzero((ids != padding) | mask.bool())
    return ids[: int(places.max()) + 1 if len(places) else 0].tolist()
