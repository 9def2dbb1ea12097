"""How much of a budget of memory the logits take that statistics are computed from, in tiles."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CHUNK = 8192  # vocabulary entries per tile of logits
BUDGET_MB = 256.0  # megabytes (10^6 bytes) where nothing is set and no GPU says how much it has
SHARE = 0.25  # of what a GPU has free: the rest is for what runs beside the tiles


def find_budget(setting: float | None, device: "torch.device") -> float:
    """Megabytes (10^6 bytes) that scoring on the device may take: those of the setting, if there is one.

    Else a share of what is free on a GPU, counting what PyTorch has reserved there and does not use, or
    `BUDGET_MB` on another device. Processes can find different numbers.
    """
    if setting is not None:
        return setting
    if device.type != "cuda":
        return BUDGET_MB
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return SHARE * (free + reserved) / 1e6


def tile_bytes(vocabulary: int) -> int:
    """Bytes per token of a tile of each of two models' logits in float32."""
    return 2 * 4 * min(CHUNK, vocabulary)


def count_within(budget_mb: float, bytes_each: float) -> int:
    """How many rows or tokens of so many bytes fit into the budget; at least 1."""
    return max(1, int(budget_mb * 1e6 / bytes_each))
