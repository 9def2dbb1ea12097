"""The rows of each forward of the scoring pass: as many as a memory budget allows."""

from itertools import accumulate
from math import ceil
from typing import Any, NamedTuple

import torch

from credit.adapters import memory

Tensor = torch.Tensor
STATES = 8  # arrays of hidden size alive at once: residual, norm, attention inputs and output, both last ones


class MicroBatch(NamedTuple):
    """Rows of the generated batch, and the number of columns before which their completions end."""

    rows: Tensor
    width: int


def micro_batches(trainer: Any, prompt_width: int, completion_mask: Tensor) -> list[MicroBatch]:
    """The generated batch in parts of equal size, with rows of similar length together.

    Every rank gets the same number of parts, since under ZeRO-3 and FSDP each forward is collective.
    """
    count, longest = completion_mask.shape
    model = trainer.accelerator.unwrap_model(trainer.model)
    size = rows_per_forward(
        model.config.get_text_config(),
        prompt_width + longest,
        model.dtype.itemsize,
        memory.find_budget(trainer.args.statistics_memory_mb, trainer.accelerator.device),
    )
    own = torch.tensor([ceil(count / size)], device=trainer.accelerator.device)
    parts = int(trainer.accelerator.gather(own).max())
    columns = torch.arange(1, longest + 1, device=completion_mask.device)
    lengths, order = (completion_mask * columns).amax(dim=1).sort()
    split = order.tensor_split(parts)
    ends, widths = accumulate(map(len, split)), lengths.tolist()
    return [MicroBatch(rows, max(1, widths[end - 1])) for rows, end in zip(split, ends, strict=True)]


def rows_per_forward(config: Any, width: int, item_size: int, budget_mb: float) -> int:
    """How many rows of `width` tokens fit into the budget in a forward without gradient; at least 1.

        bytes per token = item_size (8 D + 3 F) + 2 * 4 chunk

    for hidden size D, the three arrays of size F of an MLP, and a tile of each model's logits in float32.
    On a CPU, reducing a tile takes some 100 MB more at a large V, whatever the number of rows. What
    sharded training gathers (a layer, the lm_heads) is not counted, as in any other forward.
    """
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    inner = max(inner) if isinstance(inner, (list, tuple)) else inner
    per_token = item_size * (STATES * config.hidden_size + 3 * inner) + memory.tile_bytes(config.vocab_size)
    return memory.count_within(budget_mb, per_token * width)
