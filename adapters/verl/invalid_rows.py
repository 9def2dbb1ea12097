"""Responses whose reward is not finite: they leave verl's loss, and its means of what it logs."""

from typing import Any

import torch
from tensordict import TensorDict
from transfer_queue import kv_batch_put
from verl.protocol import DataProto, KVBatchMeta

from credit.adapters.verl.extra import fetch_fields

Tensor = torch.Tensor
ROW_MEANS = "seq-mean-"  # how the names of verl's aggregations begin that divide by the size of a mini-batch


def find_correction(aggregation: str, valid: Tensor, counted: Tensor) -> float:
    """The factor on the advantages that makes the loss a mean over the valid rows.

    verl's means over responses divide by the number of rows that the config names for a mini-batch, of
    which those that are not valid are a part. Its KL and entropy terms stay as they are.

    Args:
        valid: [N], bool: rows that take part.
        counted: [N], bool: rows that are no padding.
    """
    if not aggregation.startswith(ROW_MEANS):
        return 1.0
    return int(counted.sum()) / max(int((valid & counted).sum()), 1)


def leave_queue(batch: KVBatchMeta, valid: Tensor, counted: Tensor, aggregation: str) -> None:
    """Takes the rows that are not valid [N] out of a batch of verl's queue.

    verl counts the tokens of its loss by `loss_mask`, and computes it by `response_mask`. In the batch's tags
    the rows become padding, which verl leaves out of what it logs.
    """
    if valid.all():
        return
    data = fetch_fields(batch, "response_mask", "advantages")
    rows = [row * keep for row, keep in zip(data["response_mask"].unbind(), valid.tolist(), strict=True)]
    mask = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    fields = {"response_mask": mask, "loss_mask": mask.clone()}
    scale = find_correction(aggregation, valid, counted)
    if scale != 1.0:
        scaled = [scale * row for row in data["advantages"].unbind()]
        fields["advantages"] = torch.nested.as_nested_tensor(scaled, layout=torch.jagged)
    values = TensorDict(fields, batch_size=len(batch))
    kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=values)
    for tag, keep in zip(batch.tags, valid.tolist(), strict=True):
        if not keep:
            tag["is_padding"] = True


def leave_batch(batch: DataProto, aggregation: str) -> None:
    """The same in a batch of the trainers before V1, whose own means of rewards keep what is not finite."""
    arrays: Any = batch.batch
    valid, mask = arrays["token_level_rewards"].sum(dim=-1).isfinite(), arrays["response_mask"]
    if not mask[~valid].any():  # all are valid, or the critic's update was here before
        return
    scale = find_correction(aggregation, valid, torch.ones_like(valid))
    arrays["response_mask"] = mask * valid[:, None].to(mask.dtype)
    arrays["advantages"] = scale * arrays["advantages"]
