"""A CPU stand-in for flash attention on packed rows, without which verl's sequence parallelism is wrong.

verl exchanges heads for tokens around transformers' `_flash_attention_forward`; this computes what lies
between. Importing it registers attn_implementation=packed_on_cpu.
"""

import torch
import verl.models.transformers.monkey_patch as verl_patch
from transformers import AttentionInterface
from transformers.integrations import flash_attention


def attend(query, key, value, attention_mask, query_length, *_, position_ids=None, softmax_scale=None, **__):
    """Causal attention [1, S, H, D] within the packed rows, each of which starts at position 0."""
    repeats = query.shape[2] // key.shape[2]
    key, value = (x.repeat_interleave(repeats, dim=2) for x in (key, value))
    row = (position_ids == 0).cumsum(-1)
    allowed = torch.ones(2 * query.shape[1:2], dtype=torch.bool).tril() & (row[:, :, None] == row[:, None, :])
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    result = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=allowed[:, None], scale=softmax_scale
    )
    return result.transpose(1, 2)


def packed_on_cpu(module, query, key, value, attention_mask, **named):
    """transformers' flash attention, which verl has wrapped, with the one above inside."""
    return flash_attention.flash_attention_forward(module, query, key, value, None, **named)


verl_patch._flash_attention_forward = attend
AttentionInterface.register("packed_on_cpu", packed_on_cpu)
