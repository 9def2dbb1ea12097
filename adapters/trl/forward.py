"""The forward pass of TRL's models up to their hidden states, in each of its supported releases."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from accelerate.utils import is_peft_model
from torch.distributed.tensor import DTensor
from trl.trainer import utils

Tensor = torch.Tensor
FUSED = hasattr(utils, "add_fused_lm_head")  # from TRL 1.15 on, models return log-probs instead of logits
PLAIN_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Head(NamedTuple):
    """What turns hidden states into logits."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    soft_cap: float | None


def prepare_head(trainer: Any, model: Any) -> None:
    """Gives a model the head with which this release of TRL calls its own models."""
    if FUSED:
        utils.add_fused_lm_head(
            model.get_base_model() if is_peft_model(model) else model,
            temperature=trainer.temperature,
            cast_lm_head_to_fp32=trainer.args.cast_lm_head_to_fp32,
        )


def compute_hidden_states(trainer: Any, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Head]:
    """The last hidden states [B, L, D] for TRL's model inputs, and the head.

    They are captured within the forward that TRL's own loss uses, since under ZeRO-3 a policy that also
    runs another kind of forward fails in its next backward pass. The head itself gets two positions only.
    """
    base = find_base(trainer, model)
    captured: list[Tensor] = []

    def capture(module: Any, arguments: Any, output: Any) -> Any:
        captured.append(output.last_hidden_state)
        output.last_hidden_state = output.last_hidden_state[:, :2]
        return output

    ids = inputs["input_ids"]
    fused = {"labels": torch.full_like(ids[:, :2], -100), "fused_lm_head": True}
    call = fused if FUSED else {"use_cache": False}
    # Before transformers 5, a model with images is its own base_model, and its backbone is called model.
    backbone = base.base_model if base.base_model is not base else base.model
    hook = backbone.register_forward_hook(capture)
    try:
        with trainer.accelerator.autocast():
            model(**inputs, **call)
    finally:
        hook.remove()
    return captured[0], find_head(base)


def find_base(trainer: Any, model: Any) -> Any:
    """The model of transformers within what accelerate and PEFT put around it."""
    base = trainer.accelerator.unwrap_model(model)
    return base.get_base_model() if is_peft_model(base) else base


def find_head(model: Any) -> Head:
    """The model's lm_head with the scale and cap of its architecture, by the rules of TRL's own head.

    Raises:
        ValueError: the head is more than a weight and a bias, or they are quantized.
    """
    layer = _find_trained_layer(model.get_output_embeddings())
    _refuse_other_heads(layer)
    config = model.config.get_text_config()
    scale = None
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        scale = getattr(config, name, None) if scale is None else scale
    scaling = getattr(config, "logits_scaling", None)
    if scale is None and scaling is not None:
        scale = scaling if config.model_type == "hyperclovax" else 1 / scaling
    soft_cap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight, layer.bias, 1.0 if scale is None else scale, soft_cap)


def _find_trained_layer(layer: Any) -> Any:
    """The layer that runs, of the two that PEFT's modules_to_save keeps."""
    if not hasattr(layer, "modules_to_save"):
        return layer
    off = layer.disable_adapters or not layer.active_adapters
    return layer.original_module if off else layer.modules_to_save[layer.active_adapters[0]]


def _refuse_other_heads(layer: Any) -> None:
    """Raises ValueError unless the layer's output is its weight times its input, plus a bias."""
    plain = isinstance(layer, torch.nn.Linear) and type(layer).forward is torch.nn.Linear.forward
    weight: Any = getattr(layer, "weight", None)
    kept = isinstance(weight, DTensor) or type(weight) in (torch.nn.Parameter, Tensor)
    if not (plain and kept and weight.dtype in PLAIN_DTYPES):
        kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
        raise ValueError(
            f"the model's lm_head is a {kind} with a weight of type {type(weight).__name__}, and token "
            "statistics are computed from a plain weight; leave lm_head, and tokens tied to it, out of the "
            "adapter and of quantization"
        )
