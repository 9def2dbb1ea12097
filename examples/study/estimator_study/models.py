"""Small causal transformers of one shape, one per run, computed side by side in batched matrix products."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Parameters = dict[str, Tensor]  # each [M, ...]: the first axis counts the models


@dataclass(frozen=True)
class Shape:
    """Of every model: vocabulary, longest sequence, width, blocks and heads."""

    vocabulary: int
    positions: int
    width: int = 64
    layers: int = 2
    heads: int = 4


def initial(shape: Shape, generator: torch.Generator) -> Parameters:
    """One model [1, ...] with random weights; blocks begin as the identity."""
    width = shape.width

    def normal(*size: int) -> Tensor:
        return torch.randn(1, *size, generator=generator) * size[-2] ** -0.5

    parameters = {
        "tokens": torch.randn(1, shape.vocabulary, width, generator=generator),
        "positions": torch.randn(1, shape.positions, width, generator=generator),
        "head": normal(width, shape.vocabulary),
    }
    for layer in range(shape.layers):
        parameters |= {
            f"{layer}.qkv": normal(width, 3 * width),
            f"{layer}.out": torch.zeros(1, width, width),
            f"{layer}.up": normal(width, 2 * width),
            f"{layer}.down": torch.zeros(1, 2 * width, width),
        }
    return parameters


@dataclass
class Cache:
    """Keys and values [M, B, heads, positions, width / heads] of each layer, filled from the left."""

    layers: list[tuple[Tensor, Tensor]]
    filled: int = 0

    @classmethod
    def empty(cls, shape: Shape, models: int, rows: int, device: torch.device) -> "Cache":
        size = models, rows, shape.heads, shape.positions, shape.width // shape.heads
        pairs = [
            (torch.empty(size, device=device), torch.empty(size, device=device)) for _ in range(shape.layers)
        ]
        return cls(pairs)


def logits(parameters: Parameters, shape: Shape, ids: Tensor, cache: Cache | None = None) -> Tensor:
    """[M, B, T, V] of token ids [M, B, T], which continue what the cache holds."""
    start = cache.filled if cache else 0
    end = start + ids.shape[-1]
    models, rows, length = ids.shape
    x = _embed(parameters["tokens"], ids) + parameters["positions"][:, None, start:end]
    for layer in range(shape.layers):
        q, k, v = (
            part.unflatten(-1, (shape.heads, -1)).transpose(2, 3)
            for part in _linear(_norm(x), parameters[f"{layer}.qkv"]).chunk(3, dim=-1)
        )
        if cache:
            keys, values = cache.layers[layer]
            keys[:, :, :, start:end], values[:, :, :, start:end] = k, v
            k, v = keys[:, :, :, :end], values[:, :, :, :end]
        # A single new token sees all that the cache holds; several begin at its start.
        mixed = functional.scaled_dot_product_attention(
            q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), is_causal=length > 1
        )
        mixed = mixed.unflatten(0, (models, rows)).transpose(2, 3).flatten(-2)
        x = x + _linear(mixed, parameters[f"{layer}.out"])
        inner = functional.relu(_linear(_norm(x), parameters[f"{layer}.up"]))
        x = x + _linear(inner, parameters[f"{layer}.down"])
    if cache:
        cache.filled = end
    return _linear(_norm(x), parameters["head"])


@torch.no_grad()
def sample(
    parameters: Parameters, shape: Shape, prompts: Tensor, uniforms: Tensor, end: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Completions at temperature 1: ids, logits and mask, [M, B, T(, V)], of prompts [M, B, P].

    uniforms [M, B, T] in [0, 1) choose the tokens by the inverse of their cumulative distribution, so
    that models that agree draw the same tokens from the same numbers. The mask ends with `end`.
    """
    models, rows, steps = uniforms.shape
    cache = Cache.empty(shape, models, rows, prompts.device)
    found = logits(parameters, shape, prompts, cache)[:, :, -1]
    ids, all_logits = [], []
    for step in range(steps):
        cumulative = found.softmax(-1).cumsum(-1)
        cumulative = cumulative / cumulative[..., -1:]
        ids.append((cumulative <= uniforms[:, :, step, None]).sum(-1).clamp(max=shape.vocabulary - 1))
        all_logits.append(found)
        if step + 1 < steps:
            found = logits(parameters, shape, ids[-1][..., None], cache)[:, :, 0]
    chosen = torch.stack(ids, dim=2)
    ended = (chosen == end).cumsum(-1)
    return chosen, torch.stack(all_logits, dim=2), ended - (chosen == end).long() == 0


def stack(models: list[Parameters]) -> Parameters:
    """Models [1, ...] (or [M, ...]) as one [sum M, ...]."""
    return {name: torch.cat([model[name] for model in models]) for name in models[0]}


def _embed(table: Tensor, ids: Tensor) -> Tensor:
    models, rows, length = ids.shape
    flat = ids.flatten(1)[..., None].expand(-1, -1, table.shape[-1])
    return table.gather(1, flat).view(models, rows, length, -1)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return torch.bmm(x.flatten(1, 2), weight).unflatten(1, x.shape[1:3])


def _norm(x: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:])
