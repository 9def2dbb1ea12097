"""From slime's lists of a rank's samples to whole responses, and back.

A rank of data parallelism has some of the batch's samples, and one of context parallelism two pieces of each
of their responses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from slime.backends.megatron_utils.cp_utils import all_gather_with_cp, slice_log_prob_with_cp

from credit.adapters.heads import refuse_other_logits
from credit.adapters.slime.statistics import Scored

Tensor = torch.Tensor
WAY_OUT = "take an estimator without token statistics, or report this model"
PIECES = 2  # of each response on a rank of context parallelism; their last tokens' successors are elsewhere


def list_lengths(data: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Of each sample the number of its tokens, and of those of its response."""
    return list(zip(data["total_lengths"], data["response_lengths"], strict=True))


def cut(data: Mapping[str, Any], rows: Sequence[Tensor]) -> list[Tensor]:
    """This rank's pieces of whole responses [R]."""
    return [
        slice_log_prob_with_cp(row, total, response)
        for row, (total, response) in zip(rows, list_lengths(data), strict=True)
    ]


def join(data: Mapping[str, Any], pieces: Sequence[Tensor]) -> list[Tensor]:
    """The whole responses [R] of this rank's pieces."""
    return [
        all_gather_with_cp(piece.float(), total, response).detach()
        for piece, (total, response) in zip(pieces, list_lengths(data), strict=True)
    ]


def read_ids(data: Mapping[str, Any]) -> list[Tensor]:
    """The ids of the responses [R]."""
    return [
        tokens[len(tokens) - length :]
        for tokens, length in zip(data["tokens"], data["response_lengths"], strict=True)
    ]


def place(data: Mapping[str, Any], scored: Sequence[Scored]) -> dict[str, list[Tensor]]:
    """The statistics of whole responses [R] by name, 0 outside of their masks, from those of micro-batches.

    Raises:
        RuntimeError: slime's micro-batches hold other tokens.
        ValueError: slime's log-probs are others.
    """
    masks = [mask.bool() for mask in cut(data, data["loss_masks"])]
    ids = _pick(cut(data, read_ids(data)), masks)
    _compare(data, scored, ids, _pick(data["log_probs"], masks))
    found = dict[str, dict[int, Tensor]]()
    for name in scored[0].values:
        rows = found[name] = {}
        for samples, each in zip(data["micro_batch_indices"], scored, strict=True):
            parts = each.values[name].split([len(ids[sample]) for sample in samples])
            for sample, part in zip(samples, parts, strict=True):
                rows[sample] = part.new_zeros(masks[sample].shape).masked_scatter(masks[sample], part)
    return {name: join(data, [rows[sample] for sample in range(len(masks))]) for name, rows in found.items()}


def _pick(rows: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
    """The entries of the masks."""
    return [row[mask] for row, mask in zip(rows, masks, strict=True)]


def _compare(
    data: Mapping[str, Any], scored: Sequence[Scored], ids: Sequence[Tensor], log_probs: Sequence[Tensor]
) -> None:
    """The passes have seen these ids, and their hidden states give slime's log-probs."""
    ours, theirs, allowed = list[Tensor](), list[Tensor](), 0
    for samples, each in zip(data["micro_batch_indices"], scored, strict=True):
        expected = torch.cat([ids[sample] for sample in samples])
        if parallel_state.get_context_parallel_world_size() > 1:
            allowed = PIECES * len(samples)
        if len(each.ids) != len(expected) or int((each.ids != expected).sum()) > allowed:
            raise RuntimeError(
                f"a pass before training had {len(each.ids)} tokens of responses where slime's batch has "
                f"{len(expected)}, or others; this release of slime lays them out in another way"
            )
        known = (each.ids == expected)[: len(each.log_probs)]
        ours.append(each.log_probs[known])
        theirs.append(torch.cat([log_probs[sample] for sample in samples])[: len(known)][known])
    if any(map(len, ours)):
        refuse_other_logits(torch.cat(theirs), torch.cat(ours), WAY_OUT)
