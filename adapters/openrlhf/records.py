"""Completions with the credit of their tokens, written while training for the views of credit.lens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

import credit
from credit import lens
from credit.adapters.openrlhf.rollouts import Batch
from credit.adapters.openrlhf.trackers import find_logs
from credit.adapters.records import select_groups, select_plain
from credit.adapters.trackers import log_records
from credit.fields import is_per_token, list_arrays, replace_arrays

Tensor = torch.Tensor


class Sample(NamedTuple):
    """A prompt and all that follows it: with an agent also what its environment said between the turns."""

    prompt: list[int]  # ids
    response: list[int]  # R ids
    mask: Tensor  # [R], those that the policy chose
    text: str | None  # of a prompt with images, whose ids repeat one for each part of an image
    label: Any  # the data set's, or "" without --data.label_key


def is_recording_step(maker: Any) -> bool:
    """Whether the step is one of 1, 1 + record_steps, 1 + 2 record_steps, ...; OpenRLHF counts from 1."""
    steps = maker.args.credit.record_steps
    return steps is not None and (maker.credit_step.number - 1) % steps == 0


def write_records(maker: Any, batch: Batch, given: credit.Rollouts, result: credit.Credit) -> None:
    """Appends the batch's first groups to the file, and shows them in the trackers that the user chose."""
    choice, step = maker.args.credit, maker.credit_step
    rows, given, result = select_groups(given, result, choice.record_completions)
    samples = _take_samples(batch, rows.tolist())
    given, result = _widen(given, result, [sample.mask for sample in samples])
    labels = [sample.label for sample in samples]
    has_labels = any(not isinstance(label, str) or label for label in labels)
    lines = lens.format_records(
        tokens=lens.text_pieces(
            maker.tokenizer, [sample.response for sample in samples], [sample.prompt for sample in samples]
        ),
        rollouts=given,
        result=result,
        estimator=choice.estimator,
        prompts=[_write_prompt(maker.tokenizer, sample) for sample in samples],
        step=step.number,
        extra=select_plain({"label": labels}) if has_labels else None,
    )
    lens.append_records(choice.record_path or Path(maker.args.ckpt.output_dir) / "credit.jsonl", lines)
    log_records(lines, find_logs(step.trainer, step.number))


def _take_samples(batch: Batch, rows: Sequence[int]) -> list[Sample]:
    """The samples of those rows of the batch."""
    places = [(part, row) for part, masks in enumerate(batch.masks) for row in range(len(masks))]
    chosen = [places[row] for row in rows]
    return [_take_sample(batch.experiences[part], batch.masks[part], row) for part, row in chosen]


def _take_sample(experience: Any, masks: Tensor, row: int) -> Sample:
    """One row of an experience; `masks` [B, A] are those before rows that are not valid left the loss."""
    ids, seen = experience.sequences[row], experience.attention_mask[row].bool()
    chosen = masks[row].nonzero()[:, 0] + 1  # the mask's first column is that of the second token
    start, end = (int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else (len(ids), len(ids))
    return Sample(
        prompt=ids[:start][seen[:start]].tolist(),
        response=ids[start:end].tolist(),
        mask=masks[row, start - 1 : end - 1],
        text=experience.prompts[row] if experience.images[row] else None,
        label=experience.labels[row],
    )


def _write_prompt(tokenizer: Any, sample: Sample) -> str:
    if sample.text is not None:
        return sample.text
    text: str = tokenizer.decode(sample.prompt, skip_special_tokens=False)
    return text


def _widen(
    given: credit.Rollouts, result: credit.Credit, masks: Sequence[Tensor]
) -> tuple[credit.Rollouts, credit.Credit]:
    """The arrays [n, T] of the policy's tokens as [n, R] of whole responses, with 0 between the turns."""
    # One column at least, also where no response has a token.
    whole = pad_sequence([torch.cat([mask, mask.new_zeros(1)]) for mask in masks], batch_first=True)

    def spread(values: Tensor) -> Tensor:
        wide = torch.zeros(whole.shape, dtype=values.dtype)
        wide[whole] = values[given.mask]
        return wide

    arrays = {
        name: spread(array)
        for name, array in list_arrays(given).items()
        if is_per_token(name, array, given.mask)
    }
    widened = replace_arrays(given, arrays | {"mask": whole})
    return widened, credit.Credit(spread(result.advantages), spread(result.weights), {})
