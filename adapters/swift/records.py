"""Completions with the credit of their tokens, written while training for the views of credit.lens."""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

import credit
from credit import lens
from credit.adapters.prompts import write_prompt
from credit.adapters.records import CONTEXT, select_groups
from credit.adapters.swift import layout
from credit.adapters.swift.processes import gather_rows
from credit.adapters.swift.rollouts import Batch

Tensor = torch.Tensor


def write_records(trainer: Any, batch: Batch, given: credit.Rollouts, result: credit.Credit) -> None:
    """Appends the batch's first groups to the file; every process has to call this, the first one writes."""
    choice = trainer.credit.choice
    before = gather_rows(trainer.accelerator, batch.own_rows(_find_contexts(trainer, batch)))
    completions = batch.gather(batch.find_ids())
    prompts = gather_object([write_prompt(_find_prompt(sample)) for sample in batch.samples])
    if not trainer.accelerator.is_main_process:
        return
    rows, given, result = select_groups(given, result, choice.record_completions)
    lengths = (given.mask * torch.arange(1, given.mask.shape[1] + 1, device=given.mask.device)).amax(dim=1)
    ids = [row[:length].tolist() for row, length in zip(completions[rows], lengths.tolist(), strict=True)]
    lens.record(
        choice.record_path or Path(trainer.args.output_dir) / "credit.jsonl",
        tokens=lens.text_pieces(trainer.template.tokenizer, ids, before[rows]),
        rollouts=given,
        result=result,
        estimator=trainer.credit.estimator,
        prompts=[prompts[row] for row in rows.tolist()],
        step=trainer.state.global_step + 1,
    )


def _find_prompt(sample: Any) -> list[dict[str, Any]]:
    """The messages before the first that the policy wrote; those of a scheduler have one for each turn."""
    ids = sample.response_token_ids
    turns = len(ids) if ids and isinstance(ids[0], list) else 1
    written = [place for place, message in enumerate(sample.messages) if message["role"] == "assistant"]
    return list(sample.messages[: written[-turns]])


def _find_contexts(trainer: Any, batch: Batch) -> list[Tensor]:
    """The ids [B, 4] before the completions of each micro-batch."""
    contexts = []
    for inputs, each, start in zip(batch.inputs, batch.batches, batch.starts, strict=True):
        places, ids = layout.find_places(trainer, inputs, each), inputs["input_ids"]
        ends = places.columns.gather(1, start[:, None])
        back = torch.arange(1 - CONTEXT, 1, device=ids.device)
        contexts.append(ids[places.rows[:, :1], (ends + back).clamp(min=0)])
    return contexts
