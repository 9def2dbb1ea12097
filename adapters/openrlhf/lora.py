"""Sends a policy with LoRA to vLLM as the one model that it is: each weight merged with its adapter.

OpenRLHF sends the parameters under PEFT's names, of which vLLM knows none. Here its own broadcast, by
NCCL or CUDA IPC, gets the model's names and weights W + scale B A instead. They are computed into copies,
since subtracting again what was added would not give back W to the last bit.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from deepspeed.runtime.zero import GatheredParameters
from peft.tuners.lora import Embedding, Linear, LoraLayer

Tensor = torch.Tensor
PREFIX = "base_model.model."  # PEFT's, before the names of the model
BASE = ".base_layer."  # PEFT's, within the names of a layer with an adapter
COPIES = 2**30  # bytes of merged weights that exist at once, beside the largest


def broadcast_merged(trainer: Any) -> None:
    """OpenRLHF's ActorPPOTrainer.broadcast_to_vllm, called with some merged weights after the others.

    Every rank has to call it: under ZeRO-3 all of them gather the weights.
    """
    policy = trainer.actor
    partitioned = trainer.strategy.args.ds.zero_stage == 3
    try:
        for weights in _take_batches(merge_weights(policy.model.module, partitioned)):
            part = SimpleNamespace(named_parameters=lambda weights=weights: weights)
            trainer.actor = SimpleNamespace(model=SimpleNamespace(module=part))
            trainer.broadcast_to_vllm()
    finally:
        trainer.actor = policy


def merge_weights(model: torch.nn.Module, partitioned: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The model's own names with its weights, those with an adapter as copies W + scale B A, rounded once."""
    layers = find_layers(model)
    for name, parameter in model.named_parameters():
        layer, _, rest = name.partition(BASE)
        if layer in layers:
            weight = _merge(layers[layer], partitioned) if rest == "weight" else parameter
            yield f"{layer}.{rest}".removeprefix(PREFIX), weight
        elif name.partition(".lora_")[0] not in layers:
            yield name.removeprefix(PREFIX), parameter


def find_layers(model: torch.nn.Module) -> dict[str, LoraLayer]:
    """The layers with an adapter, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@torch.no_grad()
def _merge(layer: Any, partitioned: bool) -> Tensor:
    weight = layer.get_base_layer().weight
    with GatheredParameters(list(layer.parameters()), enabled=partitioned):
        merged = weight.detach()
        for adapter in layer.active_adapters:
            # Under ZeRO-3 the adapter stays in float32, in which this adds.
            merged = (merged + layer.get_delta_weight(adapter)).to(weight.dtype)
    if partitioned:
        merged.ds_shape = merged.shape  # where OpenRLHF looks for a partitioned weight's
    return merged


def _take_batches(weights: Iterator[tuple[str, Tensor]]) -> Iterator[list[tuple[str, Tensor]]]:
    """Lists of the weights, ended when their copies exceed COPIES."""
    batch, size = [], 0
    for name, weight in weights:
        batch.append((name, weight))
        size += 0 if isinstance(weight, torch.nn.Parameter) else weight.nbytes
        if size >= COPIES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def refuse_unmergeable(model: torch.nn.Module) -> None:
    """Raises ValueError for an adapter that vLLM's weights cannot express.

    A tied weight is one in vLLM, and an adapter changes only one of the two layers that have it.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, layer in find_layers(model).items():
        if not isinstance(layer, Linear | Embedding):
            raise ValueError(
                f"the LoRA adapter of {name} ({type(layer).__name__}) cannot be merged into a weight for "
                "vLLM; name other layers in --ds.lora.target_modules"
            )
        others = [
            other for other in names[id(layer.get_base_layer().weight)] if not other.startswith(f"{name}.")
        ]
        if others:
            raise ValueError(
                f"{name} has a LoRA adapter and shares its weight with {others[0]}, which has not, while "
                "vLLM has one weight for both; leave it out of --ds.lora.target_modules"
            )
