"""Completions with the credit of their tokens, written while training for the views of credit.lens."""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

import credit
from credit import lens
from credit.adapters.prompts import write_prompt
from credit.adapters.swift import layout
from credit.adapters.swift.processes import gather_rows
from credit.adapters.swift.rollouts import Batch, group_size
from credit.fields import map_arrays

Tensor = torch.Tensor
CONTEXT = 4  # ids before a completion that its first token's text may depend on


def is_recording_step(trainer: Any, steps: int) -> bool:
    """Whether the batch just generated serves one of the steps 0, `steps`, 2 `steps`, ..."""
    args = trainer.args
    served = trainer.num_iterations * args.steps_per_generation // args.gradient_accumulation_steps
    return bool(trainer.state.global_step % steps < max(served, 1))


def write_records(trainer: Any, batch: Batch, given: credit.Rollouts, result: credit.Credit) -> None:
    """Appends the batch's first groups to the file; every process has to call this, the first one writes."""
    choice, size, tokenizer = trainer.credit.choice, group_size(trainer), trainer.template.tokenizer
    before = gather_rows(trainer.accelerator, batch.own_rows(_find_contexts(trainer, batch)))
    completions = batch.gather(batch.find_ids())
    prompts = gather_object([write_prompt(sample.messages[:-1]) for sample in batch.samples])
    if not trainer.accelerator.is_main_process:
        return
    rows = slice(max(choice.record_completions // size, 1) * size)
    given = map_arrays(lambda array: array[rows] if array.ndim else array, given)
    result = credit.Credit(result.advantages[rows], result.weights[rows], {})
    lengths = (given.mask * torch.arange(1, given.mask.shape[1] + 1, device=given.mask.device)).amax(dim=1)
    ids = [row[:length].tolist() for row, length in zip(completions[rows], lengths.tolist(), strict=True)]
    lens.record(
        choice.record_path or Path(trainer.args.output_dir) / "credit.jsonl",
        tokens=lens.text_pieces(tokenizer, ids, before[rows]),
        rollouts=given,
        result=result,
        estimator=trainer.credit.estimator,
        prompts=prompts[rows],
        step=trainer.state.global_step + 1,
    )


def _find_contexts(trainer: Any, batch: Batch) -> list[Tensor]:
    """The ids [B, 4] before the completions of each micro-batch."""
    contexts = []
    for inputs, each, start in zip(batch.inputs, batch.batches, batch.starts, strict=True):
        places, ids = layout.find_places(trainer, inputs, each), inputs["input_ids"]
        ends = places.columns.gather(1, start[:, None])
        back = torch.arange(1 - CONTEXT, 1, device=ids.device)
        contexts.append(ids[places.rows[:, :1], (ends + back).clamp(min=0)])
    return contexts
