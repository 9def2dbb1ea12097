"""Completions with the credit of their tokens, written while training for the views of credit.lens."""

from pathlib import Path
from typing import Any

import torch

import credit
from credit import lens
from credit.adapters.prompts import write_prompt
from credit.adapters.trl.processes import gather_rows
from credit.fields import map_arrays

Tensor = torch.Tensor
CONTEXT = 4  # ids before a completion that its first token's text may depend on


def is_recording_step(trainer: Any) -> bool:
    """Whether the batch just generated serves one of the steps 0, record_steps, 2 record_steps, ..."""
    args = trainer.args
    if args.record_steps is None:
        return False
    served = trainer.num_iterations * args.steps_per_generation // args.gradient_accumulation_steps
    return bool(trainer.state.global_step % args.record_steps < max(served, 1))


def write_records(
    trainer: Any, output: dict[str, Tensor], given: credit.Rollouts, result: credit.Credit
) -> None:
    """Appends the batch's first groups to the file; every process has to call this, the first one writes."""
    args, size, padding = trainer.args, trainer.num_generations, trainer._tokenizer.pad_token_id
    before = gather_rows(trainer.accelerator, output["prompt_ids"][:, -CONTEXT:], padding, pad_first=True)
    completions = gather_rows(trainer.accelerator, output["completion_ids"], padding)
    if not trainer.accelerator.is_main_process:
        return
    rows = slice(max(args.record_completions // size, 1) * size)
    given = map_arrays(lambda array: array[rows] if array.ndim else array, given)
    result = credit.Credit(result.advantages[rows], result.weights[rows], {})
    ids = [_strip_padding(*row, padding) for row in zip(completions[rows], given.mask, strict=True)]
    texts = list(trainer._logs["prompt"])[-len(completions) :][rows]
    lens.record(
        args.record_path or Path(args.output_dir) / "credit.jsonl",
        tokens=lens.text_pieces(trainer._tokenizer, ids, before[rows]),
        rollouts=given,
        result=result,
        estimator=trainer.credit.estimator,
        prompts=[write_prompt(text) for text in texts],
        step=trainer.state.global_step + 1,
    )


def _strip_padding(ids: Tensor, mask: Tensor, padding: int) -> list[int]:
    """The ids up to the last that is not padding or is in the mask, since a response may end in padding."""
    places = torch.nonzero((ids != padding) | mask.bool())
    return ids[: int(places.max()) + 1 if len(places) else 0].tolist()
