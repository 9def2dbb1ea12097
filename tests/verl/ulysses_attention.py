"""A CPU stand-in for flash attention on packed rows, without which verl's sequence parallelism is wrong.

verl exchanges heads for tokens around transformers' `_flash_attention_forward`; this computes what lies
between. Importing it registers attn_implementation=packed_on_cpu. Models with images call flash attention in
verl's own attention of Qwen2-VL, which gets it from here too.
"""

import torch
import verl.models.transformers.monkey_patch as verl_patch
import verl.models.transformers.qwen2_vl as qwen2_vl
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


def varlen(q, k, v, cu_seqlens_q, softmax_scale=None, **_):
    """Causal attention [S, H, D] within the packed rows that start at these places."""
    places = torch.arange(len(q))
    starts = cu_seqlens_q[torch.searchsorted(cu_seqlens_q, places, right=True) - 1]
    positions = (places - starts)[None]
    return attend(q[None], k[None], v[None], None, 0, position_ids=positions, softmax_scale=softmax_scale)[0]


def one_row(query, key, value, attention_mask, query_length, softmax_scale=None, **_):
    """Causal attention [1, S, H, D] of one row: verl gives no positions of what is in order."""
    positions = torch.arange(query.shape[1])[None]
    return attend(query, key, value, None, 0, position_ids=positions, softmax_scale=softmax_scale)


verl_patch._flash_attention_forward = attend
qwen2_vl._flash_attention_forward, qwen2_vl.flash_attn_varlen_func = one_row, varlen
qwen2_vl.fa_peft_integration_check = lambda *tensors, target_dtype: tensors  # a kernel takes 16 bits alone
qwen2_vl._flash_supports_window_size = qwen2_vl._flash_supports_deterministic = False
qwen2_vl._flash_use_top_left_mask = False
AttentionInterface.register("packed_on_cpu", packed_on_cpu)
