"""What lies between a transformers model's last hidden states and its logits, and statistics through it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from accelerate.utils import is_peft_model
from torch.distributed.tensor import DTensor

import credit
from credit.adapters.fields import compute_by_name
from credit.adapters.memory import CHUNK, count_within, find_budget, tile_bytes

Tensor = torch.Tensor
PLAIN_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
WITHIN_ADAPTERS = ("modules_to_save", "trainable_tokens")  # parts of names of what PEFT leaves out, too
ROUNDING = 0.25  # nats: of 16-bit logits below 64, of which frameworks take log-probs


class Head(NamedTuple):
    """What turns hidden states into logits."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    soft_cap: float | None


def find_base(model: Any) -> Any:
    """The model of transformers within what PEFT puts around it."""
    return model.get_base_model() if is_peft_model(model) else model


def refuse_trained_base(model: Any, option: str) -> None:
    """Raises ValueError if weights of a PEFT model train that stay when its adapter is left out.

    A reference that is the model without its adapter would train along. `option` leaves out what a tuner
    trains beside its adapter.
    """
    own = (model.base_model.prefix, *WITHIN_ADAPTERS)
    trained = (name for name, weight in model.named_parameters() if weight.requires_grad)
    found = [name for name in trained if not any(part in name for part in own)]
    if found:
        raise ValueError(
            f"{found[0]} trains outside of the adapter, so that the model without its adapter is not the "
            f"reference that training began with; set {option}, and train nothing beside the adapter"
        )


@contextmanager
def on_hidden_states(model: Any, receive: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Within it a forward of the base model calls receive([B, L, D]) with the hidden states before its head.

    What `receive` returns goes on to the head in their place, unless it is None.
    """

    def hook(module: Any, arguments: Any, output: Any) -> Any:
        given = receive(output.last_hidden_state)
        if given is not None:
            output.last_hidden_state = given
        return output

    # Before transformers 5, a model with images is its own base_model, and its backbone is called model.
    backbone = model.base_model if model.base_model is not model else model.model
    handle = backbone.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def find_head(model: Any) -> Head:
    """The base model's lm_head with the scale and cap of its architecture, by the rules of TRL's own head.

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
    soft_cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    return Head(layer.weight, layer.bias, 1.0 if scale is None else scale, soft_cap)


def compute_statistics(
    names: Sequence[str],
    hidden: tuple[Tensor, Tensor | None],
    heads: tuple[Head, Head | None],
    ids: Tensor,
    temperature: float | Tensor,
) -> dict[str, Tensor]:
    """The statistics [M] of those names of the ids [M], from policy's and reference's hidden states [M, D].

    The weights are whole; the reference's scale and soft cap are the policy's. Names that do not compare
    need no reference.
    """
    policy, reference = heads
    weight, bias = (None, None) if reference is None else (reference.weight, reference.bias)
    return compute_by_name(
        credit.token_statistics_from_hidden,
        names,
        *(hidden[0], policy.weight, hidden[1], weight, ids),
        temperature=temperature,
        policy_bias=policy.bias,
        reference_bias=bias,
        scale=policy.scale,
        soft_cap=policy.soft_cap,
        chunk=CHUNK,
    )


def compute_in_slices(
    names: Sequence[str],
    hidden: tuple[Tensor, Tensor | None],
    heads: tuple[Head, Head | None],
    ids: Tensor,
    temperature: float | Tensor,
    memory_mb: float | None,
) -> dict[str, Tensor]:
    """As `compute_statistics`, of so many tokens at a time that their tiles of logits fit into `memory_mb`.

    None is what `find_budget` finds. The temperature is one number, or one per token, [M].
    """
    ours, theirs = hidden
    size = count_within(find_budget(memory_mb, ours.device), tile_bytes(len(heads[0].weight)))
    slices = [slice(start, start + size) for start in range(0, max(1, len(ids)), size)]
    found = [
        compute_statistics(
            names,
            (ours[part], None if theirs is None else theirs[part]),
            heads,
            ids[part],
            temperature[part] if isinstance(temperature, Tensor) else temperature,
        )
        for part in slices
    ]
    return {name: torch.cat([part[name] for part in found]) for name in names}


def refuse_other_logits(theirs: Tensor, ours: Tensor, way_out: str) -> None:
    """Raises ValueError if a framework's log-probs are not those of the model's hidden states and head.

    A model can do more between the two than `find_head` knows of.
    """
    gaps = (theirs.float() - ours).abs()
    gap = gaps[gaps.isfinite()].mean()
    if gap > ROUNDING:
        raise ValueError(
            f"log-probs from the model's hidden states and lm_head are {gap:.3g} nats off those of the "
            f"framework, so its logits are made in another way; {way_out}"
        )


@contextmanager
def gather_zero3(*parameters: Any) -> Iterator[None]:
    """Within it parameters that DeepSpeed's ZeRO-3 shards are whole; others, and None, stay as they are.

    They are gathered one after the other: given several at once, DeepSpeed waits for the last one only, which
    is too early for the others on gloo.
    """
    with ExitStack() as stack:
        # Of a policy that acts as its own reference, both heads are one.
        for parameter in {id(each): each for each in parameters}.values():
            if hasattr(parameter, "ds_id"):
                import deepspeed

                stack.enter_context(deepspeed.zero.GatheredParameters([parameter]))
        yield


def gather_shards(head: Head, device: torch.device | None = None) -> Head:
    """The head with its weight and bias whole, which may be FSDP 2's shards.

    With a `device` they are brought there first: with FSDP's cpu_offload the shards are on the CPU.
    """

    def gather(parameter: Any) -> Any:
        if parameter is not None and device is not None:
            parameter = parameter.to(device)
        return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter

    return head._replace(weight=gather(head.weight), bias=gather(head.bias))


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
