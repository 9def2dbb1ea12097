"""A stand-in for ring_flash_attn: exact causal attention over packed rows whose tokens lie on several ranks.

Every rank gathers all keys and values, where the package sends them around some heads at a time. It takes
the place of transformers' sdpa, which is what runs on a CPU where packing chooses flash attention.
"""

from typing import Any

import torch
import torch.distributed as dist
from flash_attn.utils.distributed import all_gather
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Tensor = torch.Tensor
STARTS: dict[dist.ProcessGroup, Tensor] = {}  # where the rows of the current forward start, over all ranks


def update_ring_flash_attn_params(cu_seqlens: Tensor, process_group: dist.ProcessGroup) -> None:
    """Takes where each packed row starts, and behind the last one the end [B + 1]."""
    total, ranks = int(cu_seqlens[-1]), dist.get_world_size(process_group)
    assert total % ranks == 0, f"{total} tokens cannot be shared by {ranks} ranks"
    STARTS[process_group] = cu_seqlens


def substitute_hf_flash_attn(process_group: dist.ProcessGroup, heads_k_stride: int) -> None:
    """Makes transformers' models attend to the tokens of all ranks."""

    def attend(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Attention [1, N, H, D] of this rank's queries [1, H, N, D]. What is seen follows from the rows."""
        assert module.is_causal, "only causal attention is there"
        assert softcap is None, "there is no soft cap"
        assert sliding_window is None, "there is no sliding window"
        assert len(query) == 1, "the rows have to be packed"
        assert key.shape[1] % heads_k_stride == 0, "the number of key heads is no multiple of the stride"
        key, value = (_gather(part, process_group) for part in (key, value))
        seen = find_seen(STARTS[process_group], dist.get_rank(process_group), query.shape[2])
        made = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, dropout_p=dropout, scale=scaling, enable_gqa=True
        )
        return made.transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS["sdpa"] = attend


def _gather(states: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The keys or values [1, H, N, D] of all ranks, one after the other."""
    return all_gather(states.permute(2, 0, 1, 3), group).permute(1, 2, 0, 3)


def find_seen(starts: Tensor, rank: int, length: int) -> Tensor:
    """Which tokens [N, R N] each of this rank's sees: those of its own row that are not after it."""
    keys = torch.arange(int(starts[-1]), device=starts.device)
    rows = torch.searchsorted(starts[1:].long(), keys, right=True)
    own = slice(rank * length, (rank + 1) * length)
    return (rows[own, None] == rows) & (keys[own, None] >= keys)
