"""The forward pass of TRL's models up to their hidden states, in each of its supported releases."""

from collections.abc import Mapping
from typing import Any

import torch
from trl.trainer import utils

from credit.adapters import heads
from credit.adapters.trl.unsloth import find_trainer

Tensor = torch.Tensor
FUSED = hasattr(utils, "add_fused_lm_head")  # from TRL 1.15 on, models return log-probs instead of logits


def prepare_head(trainer: Any, model: Any) -> None:
    """Gives a model the head with which this release of TRL calls its own models."""
    if FUSED:
        utils.add_fused_lm_head(
            heads.find_base(model),
            temperature=trainer.temperature,
            cast_lm_head_to_fp32=trainer.args.cast_lm_head_to_fp32,
        )


def compute_hidden_states(trainer: Any, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, heads.Head]:
    """The last hidden states [B, L, D] for TRL's model inputs, and the head.

    They are captured within the forward that TRL's own loss uses, since under ZeRO-3 a policy that also
    runs another kind of forward fails in its next backward pass. The head itself gets two positions only.
    """
    base = find_base(trainer, model)
    captured: list[Tensor] = []

    def capture(hidden: Tensor) -> Tensor:
        captured.append(hidden)
        return hidden[:, :2]

    ids = inputs["input_ids"]
    fused = {"labels": torch.full_like(ids[:, :2], -100), "fused_lm_head": True}
    plain = not FUSED or find_trainer(type(trainer)) is not None  # as Unsloth's own loss calls its models
    call = {"use_cache": False} if plain else fused
    with heads.on_hidden_states(base, capture), trainer.accelerator.autocast():
        model(**inputs, **call)
    return captured[0], heads.find_head(base)


def find_base(trainer: Any, model: Any) -> Any:
    """The model of transformers within what accelerate and PEFT put around it."""
    return heads.find_base(trainer.accelerator.unwrap_model(model))
