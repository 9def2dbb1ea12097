"""torch on a CPU: the blocks of `blocks.py` on the tensors' own memory; 16 bits are widened by blocks."""

from typing import Any

import numpy as np
import torch

from credit.backends import blocks, tiles

Tensor = torch.Tensor


def token_statistics(
    policy_logits: Tensor, reference_logits: Tensor, token_ids: Tensor, temperature: Tensor | float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `array_api.token_statistics`."""
    logits = policy_logits.detach(), reference_logits.detach()
    dtype = tiles.computing_dtype(*logits)
    known = (token_ids >= 0) & (token_ids < policy_logits.shape[-1])
    places = torch.where(known, token_ids, 0)[..., None]
    selected = [torch.where(known, x.gather(-1, places)[..., 0].to(dtype), 0.0).numpy() for x in logits]
    half = tiles.halved(temperature, token_ids, dtype).detach().numpy()
    sides: Any = tuple(x.numpy() if x.dtype == dtype else x for x in logits)
    results = blocks.fold(sides, _read, selected, token_ids.numpy(), half, torch.get_num_threads())
    log_p, log_q, entropy, deviation = (torch.from_numpy(np.asarray(x)) for x in results)
    return log_p, log_q, entropy, deviation


def _read(logits: Any, place: tuple[Any, ...], out: Any) -> Any:
    if isinstance(logits, np.ndarray):
        return logits[place]
    torch.from_numpy(out).copy_(logits[place])
    return out
