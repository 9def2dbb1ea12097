"""Which weights vLLM's loader takes, kept to by the stand-in: its engine refuses what vLLM 0.29 refuses.

The rules are those of AutoWeightsLoader (vllm/model_executor/models/utils.py), with which Qwen2, Llama and
most others load, and of default_weight_loader (vllm/model_executor/model_loader/weight_utils.py), for names
as Hugging Face's models have them. vLLM also takes the names of its own fused layers (qkv_proj), which no
trainer sends. Dtypes are compared before the loader is called, by OpenRLHF's WorkerWrap.
"""

from collections.abc import Iterable

import torch
from torch import nn

Tensor = torch.Tensor

# Left in checkpoints of early Llama models; vLLM drops a name that contains one of them.
ROTARY = ("rotary_pos_emb.inv_freq", "rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")


def load_weights(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
    """Copies the weights into the model's tensors of those names; the names that were loaded.

    Raises:
        ValueError: a name that is no tensor of the model, or a tied one without the tensor it is tied to.
        AssertionError: another shape than the model's.
    """
    tied, loaded, skipped = find_tied(model), set(), {}
    for name, weight in weights:
        if any(part in name for part in ROTARY):
            continue
        if name in tied:
            skipped[name] = tied[name]
            continue
        tensor = find_tensor(model, name)
        if tensor is not None:
            copy_weight(tensor, weight)
            loaded.add(name)
    for name, first in skipped.items():
        if first not in loaded:
            raise ValueError(
                f"{name!r} was skipped because it is tied to {first!r}, which was not sent with it"
            )
    return loaded


def find_tied(model: nn.Module) -> dict[str, str]:
    """The name of each tensor that has an earlier name, such as lm_head.weight, with that name."""
    first: dict[int, str] = {}
    names = [
        (name, first.setdefault(id(parameter), name))
        for name, parameter in model.named_parameters(remove_duplicate=False)
    ]
    return {name: earlier for name, earlier in names if name != earlier}


def find_tensor(model: nn.Module, name: str) -> Tensor | None:
    """The parameter or saved buffer of that name; None where vLLM ignores it, which it does with a bias.

    The bias is ignored if its layer is there, so that checkpoints load whose linear layers have one too many.
    """
    module, parts = model, name.split(".")
    for i, part in enumerate(parts):
        if part in module._modules:
            module = module.get_submodule(part)
            continue
        own = dict(module.named_parameters(recurse=False))
        own |= {key: buffer for key, buffer in module.named_buffers(recurse=False) if _is_saved(module, key)}
        unknown = ".".join(parts[: i + 1] if part not in own else parts)
        if part in own and i == len(parts) - 1:
            return own[part]
        # The decoder has a loader of its own, to which a bias of the decoder itself is a name without a dot.
        if unknown.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.").endswith(".bias"):
            return None
        kind = "a name below the single parameter" if part in own else "no module or parameter"
        raise ValueError(f"{unknown!r} is {kind} of {type(model).__name__}")
    raise ValueError(f"{name!r} is a module of {type(model).__name__}, not a parameter")


def _is_saved(module: nn.Module, buffer: str) -> bool:
    return buffer not in module._non_persistent_buffers_set


def copy_weight(tensor: Tensor, weight: Tensor) -> None:
    """Copies a weight of the same shape, and casts it, as vLLM does. Of single numbers shapes may differ."""
    if tensor.numel() == weight.numel() == 1:
        weight = weight.view(tensor.shape)
    assert tensor.size() == weight.size(), f"weight of {weight.size()} for a parameter of {tensor.size()}"
    with torch.no_grad():
        tensor.copy_(weight)
