"""Where the tokens of ms-swift's micro-batches stand: padded or packed, on one rank or split over several."""

from typing import Any, NamedTuple

import torch
import torch.distributed
from swift.rlhf_trainers.utils import pad_logps_back_to_batch
from swift.sequence_parallel import sequence_parallel

Tensor = torch.Tensor


class Places(NamedTuple):
    """For each place [B, T] of a micro-batch's completions, the hidden state that predicts it.

    The places end with the last column of the longest row; what is not in ms-swift's completion mask is the
    prompt's, a tool's or padding.
    """

    rows: Tensor  # [B, T], of the model's inputs
    columns: Tensor  # [B, T], of the model's inputs; the token itself stands one column further


def find_places(trainer: Any, model_inputs: Any, grpo_batch: Any) -> Places:
    """The places of the completions in the model's inputs [R, L], where ms-swift finds their log-probs."""
    width, count = grpo_batch.logits_to_keep, len(grpo_batch.completion_mask)
    ids = model_inputs["input_ids"]
    first, columns = ids.shape[1] - width - 1, torch.arange(width, device=ids.device)
    if trainer.template.padding_free:
        columns, _ = pad_logps_back_to_batch(
            columns[None],
            logits_to_keep=width,
            batch_size=count,
            seq_lengths=grpo_batch.seq_lengths,
            pad_value=0,
        )
        return Places(torch.zeros_like(columns), first + columns)
    rows = torch.arange(count, device=ids.device)[:, None].expand(count, width)
    return Places(rows, (first + columns).expand(count, width))


def refuse_rings(trainer: Any) -> None:
    """Raises ValueError where ms-swift takes ring attention, whose ranks have two pieces of each sequence."""
    ranks, rings = sequence_parallel.sp_world_size, sequence_parallel.rp_world_size
    if splits_sequences(trainer) and rings > 1:
        raise ValueError(
            f"--sequence_parallel_size {ranks * rings} is more than the model's attention heads can be "
            "divided by, so that ms-swift takes ring attention, whose layout this adapter does not know; use "
            f"{ranks}"
        )


def find_ids(places: Places, input_ids: Tensor) -> Tensor:
    """The tokens [B, T] at the places."""
    return input_ids[places.rows, places.columns + 1]


class Selection(NamedTuple):
    """The hidden states of this rank that predict M tokens, some of which other ranks may have."""

    hidden: Tensor  # [m, D]
    own: Tensor  # [M], bool: which of the tokens they predict


def select_hidden(trainer: Any, hidden: Tensor, rows: Tensor, columns: Tensor) -> Selection:
    """Of this rank's hidden states [R, l, D], those in the rows [M] and columns [M] of the whole inputs."""
    rows, columns = rows.to(hidden.device), columns.to(hidden.device)
    if not splits_sequences(trainer):
        return Selection(hidden[rows, columns], torch.ones_like(rows, dtype=torch.bool))
    length = hidden.shape[1]
    own = columns // length == sequence_parallel.sp_rank
    return Selection(hidden[rows[own], columns[own] % length], own)


def join_ranks(trainer: Any, values: Tensor, own: Tensor) -> Tensor:
    """Values [M] of all tokens from those [m] of this rank's, where several ranks split the sequences."""
    whole = values.new_zeros(own.shape)
    whole[own] = values
    if splits_sequences(trainer):
        torch.distributed.all_reduce(whole, group=sequence_parallel.sp_group)
    return whole


def splits_sequences(trainer: Any) -> bool:
    """Whether each rank has a part of every sequence (--sequence_parallel_size)."""
    return bool(trainer.template.sequence_parallel_size > 1)


def count_padding(trainer: Any, input_ids: Tensor) -> int:
    """How many columns ms-swift adds behind padded rows [B, L], so that each rank gets as many of them."""
    return 0 if trainer.template.padding_free else -input_ids.shape[1] % int(sequence_parallel.world_size)
