"""The tokens of a micro-batch as verl's FSDP engines lay them out: packed or padded, on one rank or more."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from credit.adapters.heads import Head, compute_in_slices

Tensor = torch.Tensor


class Tokens(NamedTuple):
    """What the hidden states of a micro-batch predict on this rank, and where they stand."""

    ids: Tensor  # [M]
    temperature: Tensor  # [M]
    mask: Tensor | None  # [B, L] of padded rows; None: the rows are packed
    padding: int  # behind the packed rows of all ranks


def read_tokens(engine: Any, micro_batch: Any) -> Tokens:
    """The tokens as the engine lays them out for its model."""
    _, given = engine.prepare_model_inputs(micro_batch)
    ids = given["input_ids_rmpad_rolled"]
    if "temperature_rmpad" in given:
        return Tokens(ids, given["temperature_rmpad"], None, given["pad_size"])
    lengths = micro_batch["input_ids"].offsets().diff()
    mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    return Tokens(ids, given["temperature"].repeat_interleave(lengths), mask, 0)


def compute(
    names: Sequence[str],
    tokens: Tokens,
    hidden: tuple[Tensor, Tensor | None],
    heads: tuple[Head, Head | None],
    memory_mb: float | None,
) -> dict[str, Tensor]:
    """The statistics [M] of policy and reference, from their hidden states [B, L, D]."""

    def select(states: Tensor) -> Tensor:
        return states[0] if tokens.mask is None else states[tokens.mask]

    ours, theirs = hidden
    rows = select(ours), None if theirs is None else select(theirs)
    return compute_in_slices(names, rows, heads, tokens.ids, tokens.temperature, memory_mb)


def nest(engine: Any, micro_batch: Any, tokens: Tokens, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The statistics [M] of this rank as verl's nested rows, those of a shared sequence from all ranks."""
    offsets = micro_batch["input_ids"].offsets()
    if tokens.mask is None:
        found = {n: engine._gather_and_unpad_packed(x, tokens.padding) for n, x in found.items()}
    return {name: torch.nested.nested_tensor_from_jagged(x, offsets) for name, x in found.items()}
