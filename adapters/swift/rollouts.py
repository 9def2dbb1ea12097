"""From ms-swift's micro-batches to the rollouts that an estimator takes, and back."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from swift.sequence_parallel import sequence_parallel
from torch.nn.functional import pad

import credit
from credit.adapters import rewards
from credit.adapters.swift import extra, layout
from credit.adapters.swift.processes import gather_rows
from credit.fields import replace_arrays

Tensor = torch.Tensor


class Groups(NamedTuple):
    """How the rows [N] of all processes belong together."""

    ids: Tensor  # [N], of the prompts
    last: list[int]  # [N], the row with the last output of each row's session


def find_groups(trainer: Any, samples: Sequence[Any], count: int, device: Any) -> Groups:
    """The groups of all processes' rows, of which `count` there are."""
    if not trainer.dynamic_num_samples:
        return Groups(torch.arange(count, device=device) // group_size(trainer), list(range(count)))
    prompts = gather_object([sample.prompt_id for sample in samples])
    sessions = gather_object([sample.request_id for sample in samples])
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    last = {session: row for row, session in enumerate(sessions)}
    ids = torch.tensor([numbers[prompt] for prompt in prompts], device=device)
    return Groups(ids, [last[session] for session in sessions])


def group_size(trainer: Any) -> int:
    """Completions per prompt."""
    return int(trainer.num_generations if trainer.model.training else trainer.num_generations_eval)


class Batch:
    """The completions of this process' samples, aligned to the left: [n, T] of at most T columns.

    ms-swift's masks [B, T] of micro-batches end with a common column, and prompts stand before shorter
    completions. Where several ranks split the sequences, each has the samples of all of them.
    """

    def __init__(self, trainer: Any, samples: Sequence[Any], encoded: Sequence[Mapping[str, Any]]) -> None:
        self.trainer, self.samples = trainer, samples
        self.batches = [each["grpo_batch"] for each in encoded]
        self.inputs = [each["model_inputs"] for each in encoded]
        self.starts = [batch.completion_mask.int().argmax(dim=1) for batch in self.batches]
        self.mask = self.align([batch.completion_mask for batch in self.batches])
        self.whole_mask = gather_rows(trainer.accelerator, self.mask)

    def align(self, fields: Sequence[Tensor]) -> Tensor:
        """The rows [n, T] of this process' samples, of the micro-batches' [B, T]; behind them are zeros."""
        width = max(field.shape[1] for field in fields)
        moved = [_move_left(field, start) for field, start in zip(fields, self.starts, strict=True)]
        return self.own_rows([pad(field, (0, width - field.shape[1])) for field in moved])

    def own_rows(self, fields: Sequence[Tensor]) -> Tensor:
        """The rows [n, ...] of this process' samples, of the micro-batches' [B, ...]."""
        rows = torch.cat(list(fields))
        if layout.splits_sequences(self.trainer):
            first = sequence_parallel.sp_rank * len(self.samples)
            rows = rows[first : first + len(self.samples)]
        return rows

    def gather(self, fields: Sequence[Tensor]) -> Tensor:
        """The rows [N, T] of all processes, of the micro-batches' [B, T]."""
        return gather_rows(self.trainer.accelerator, self.align(fields))

    def find_ids(self) -> list[Tensor]:
        """The tokens [B, T] of the micro-batches."""
        pairs = zip(self.inputs, self.batches, strict=True)
        return [
            layout.find_ids(layout.find_places(self.trainer, inputs, batch), inputs["input_ids"])
            for inputs, batch in pairs
        ]

    def place(self, values: Tensor) -> list[Tensor]:
        """The micro-batches' [B, T] of this process' rows [n, T], and those of ranks that share them."""
        # Ranks that share sequences get each other's samples, and with them what they carry.
        for sample, row in zip(self.samples, values, strict=True):
            sample.advantages = row
        placed = []
        chunks = self.trainer.split_by_mini_batches(self.samples)
        for chunk, batch, start in zip(chunks, self.batches, self.starts, strict=True):
            width = batch.completion_mask.shape[1]
            rows = [pad(sample.advantages.to(start.device), (0, width))[:width] for sample in chunk]
            placed.append(_move_right(torch.stack(rows), start))
        return placed


def make_rollouts(
    trainer: Any,
    batch: Batch,
    groups: Groups,
    given: Tensor,
    valid: Tensor,
    statistics: Sequence[Mapping[str, Tensor]],
    every: bool,
) -> credit.Rollouts:
    """The rollouts of all processes.

    Args:
        given: the rewards [N, K] of all functions.
        valid: [N]; other rows take no part in their groups.
        statistics: of each micro-batch, [B, T] by name.
        every: fills all statistics in, also those that the estimator does not read.
    """
    needs, state = trainer.credit.estimator.required_fields, trainer.state
    computed = statistics[0] if statistics else {}
    names = [name for name in computed if every or name in needs]
    fields = {name: batch.gather([each[name] for each in statistics]) for name in names}
    if "rollout_log_probs" in needs:
        fields["rollout_log_probs"] = batch.gather(recorded_log_probs(trainer, batch))
    if "turns" in needs:
        fields["turns"] = credit.tokens.turns(batch.whole_mask)
    if "extra.token_ids" in needs:
        fields["extra.token_ids"] = batch.gather(batch.find_ids())
    fields |= extra.gather_given(trainer, batch)
    rollouts = credit.Rollouts(
        rewards=rewards.combine_rewards(trainer.credit.estimator, given, trainer.reward_weights),
        groups=groups.ids,
        mask=batch.whole_mask,
        valid=valid,
        progress=torch.tensor(state.global_step / max(state.max_steps, 1), device=given.device),
    )
    return replace_arrays(rollouts, fields)


def recorded_log_probs(trainer: Any, batch: Batch) -> list[Tensor]:
    """The log-probs [B, T] of the engine that sampled; a ValueError if a micro-batch has none."""
    found = [each.rollout_per_token_logps for each in batch.batches]
    if any(each is None for each in found):
        raise ValueError(
            f"{trainer.credit.estimator.name} needs rollout_log_probs, and vLLM returned none with these "
            "samples, or not one for each token; see that a multi-turn scheduler returns rollout_logprobs"
        )
    return found


def _move_left(field: Tensor, starts: Tensor) -> Tensor:
    """The rows [B, T] from their starts [B] on, with zeros behind them."""
    columns = starts[:, None] + torch.arange(field.shape[1], device=field.device)
    inside = columns < field.shape[1]
    return field.gather(1, columns.clamp(max=field.shape[1] - 1)) * inside


def _move_right(field: Tensor, starts: Tensor) -> Tensor:
    """The rows [B, T] with their first columns at their starts [B], and zeros before them."""
    columns = torch.arange(field.shape[1], device=field.device) - starts[:, None]
    return field.gather(1, columns.clamp(min=0)) * (columns >= 0)
