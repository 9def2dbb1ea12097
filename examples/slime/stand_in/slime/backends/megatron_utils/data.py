"""Micro-batches of packed sequences."""

import torch
from megatron.core import mpu
from megatron.core.packed_seq_params import PackedSeqParams

from slime.backends.megatron_utils.cp_utils import slice_with_cp


class DataIterator:
    """Gives the samples of each micro-batch in turn."""

    def __init__(self, rollout_data, micro_batch_indices):
        self.rollout_data, self.micro_batch_indices, self.offset = rollout_data, micro_batch_indices, 0

    def get_next(self, keys):
        samples = self.micro_batch_indices[self.offset]
        self.offset += 1
        fields = {key: self.rollout_data.get(key) for key in keys}
        return {
            key: None if values is None else [values[sample] for sample in samples]
            for key, values in fields.items()
        }

    def reset(self):
        self.offset = 0
        return self


def get_data_iterator(rollout_data):
    return [DataIterator(rollout_data, rollout_data["micro_batch_indices"])]


def get_batch(data_iterator, keys, pad_multiplier=128, allgather_cp=False):
    """The next micro-batch, its samples one behind the other in one row."""
    batch = data_iterator.get_next(keys)
    batch["unconcat_tokens"] = batch["tokens"]
    masks = [
        torch.nn.functional.pad(mask, (total - response - 1, 1))
        for mask, total, response in zip(
            batch["loss_masks"], batch["total_lengths"], batch["response_lengths"], strict=True
        )
    ]
    rows = [slice_with_cp(tokens, 0) for tokens in batch["tokens"]]
    lengths = [len(row) for row in rows]
    padding = -sum(lengths) % (mpu.get_tensor_model_parallel_world_size() * pad_multiplier)
    bounds = torch.tensor([0, *lengths, *([padding] if padding else [])]).cumsum(0).int()
    bounds = bounds * mpu.get_context_parallel_world_size()
    longest = int(bounds.diff().max())
    batch["packed_seq_params"] = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=bounds,
        cu_seqlens_kv=bounds,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )

    def pack(parts):
        return torch.nn.functional.pad(torch.cat(parts), (0, padding))[None]

    batch["tokens"] = pack(rows)
    batch["full_loss_masks"] = pack([slice_with_cp(mask, 0) for mask in masks])
    batch["multimodal_train_inputs"] = None
    return batch
