"""Where the tokens of SkyRL's micro-batches stand in its model's hidden states: in padded or packed rows."""

from typing import NamedTuple

import torch

Tensor = torch.Tensor


class Places(NamedTuple):
    """The M tokens of a micro-batch that are scored."""

    ids: Tensor  # [M]
    mask: Tensor  # [n, T], bool, where the tokens stand in SkyRL's responses
    rows: Tensor  # [M], of the hidden state that predicts each, [R, L, D]
    columns: Tensor  # [M]


def find_places(sequences: Tensor, attention_mask: Tensor, mask: Tensor, packed: bool) -> Places:
    """The places of the tokens in the mask [n, T], which ends with the sequences [n, S] as SkyRL pads them.

    Rows are padded on the left. Packed, the attended tokens of all rows follow each other in one.
    """
    width = sequences.shape[1]
    rows, columns = mask.nonzero(as_tuple=True)
    before = width - mask.shape[1] + columns - 1  # of the token that each follows
    ids = sequences[rows, before + 1]
    if not packed:
        return Places(ids, mask, rows, before)
    positions = attention_mask.flatten().cumsum(dim=0) - 1
    return Places(ids, mask, torch.zeros_like(rows), positions[rows * width + before])


def select_hidden(places: Places, hidden: Tensor) -> Tensor:
    """Of the hidden states [R, L, D] those that predict the tokens, [M, D]."""
    return hidden[places.rows, places.columns]


def put_back(places: Places, values: Tensor) -> Tensor:
    """The values [M] at their places in [n, T], and 0 elsewhere."""
    return values.new_zeros(places.mask.shape).masked_scatter(places.mask, values)
