"""Whether a model's logits are its head's: some make others of them, and no setting of all tells which."""

from typing import Any

import torch

from credit.adapters.heads import Head

Tensor = torch.Tensor
ENTRIES = 1024
"""How many logits of one position are compared: a head of the whole vocabulary in float32 is large."""
TOLERANCE = 0.03
"""Of the largest logit; those of 16 bits, and autocast, differ by a tenth of it."""


@torch.no_grad()
def first_logits(head: Head, hidden: Tensor) -> Tensor:
    """Some logits [W] of the first position, from the hidden states [B, L, D] before a head."""
    with torch.autocast(hidden.device.type, enabled=False):
        logits = head.weight[:ENTRIES].float() @ hidden[0, 0].float()
        if head.bias is not None:
            logits = logits + head.bias[:ENTRIES].float()
        logits = head.scale * logits
        return logits if head.soft_cap is None else head.soft_cap * torch.tanh(logits / head.soft_cap)


def refuse_other_logits(model: Any, output: Any, expected: Tensor) -> None:
    """Raises ValueError unless the model's output has the logits [W] of its first position.

    verl's fused kernels hand over none, since they compute log-probs from the head themselves.
    """
    logits = getattr(output, "logits", None)
    if logits is None:
        return
    given = logits[0, 0, : len(expected)].float()
    largest, difference = given.abs().max().item(), (given - expected).abs().max().item()
    if difference > TOLERANCE * largest:
        raise ValueError(
            f"{type(model).__name__} makes other logits than its lm_head gives for its last hidden states "
            f"(they differ by up to {difference:.2g}, and the largest is {largest:.2g}), so token statistics "
            "from hidden states would be wrong; let verl's own passes give them (trainer.v1.trainer_mode="
            "sync where the entropy is needed, +algorithm.credit.divergence=binary for a deviation), or use "
            "an estimator of rewards alone"
        )
