"""How much of a budget of memory the logits take that statistics are computed from, in tiles."""

CHUNK = 8192  # vocabulary entries per tile of logits
BUDGET_MB = 256.0  # megabytes (10^6 bytes) that users get who set nothing


def tile_bytes(vocabulary: int) -> int:
    """Bytes per token of a tile of each of two models' logits in float32."""
    return 2 * 4 * min(CHUNK, vocabulary)


def count_within(budget_mb: float, bytes_each: float) -> int:
    """How many rows or tokens of so many bytes fit into the budget; at least 1."""
    return max(1, int(budget_mb * 1e6 / bytes_each))
