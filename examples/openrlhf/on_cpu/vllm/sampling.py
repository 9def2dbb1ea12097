"""Token by token, so that an engine's requests take turns and a weight update can fall within a response."""

import asyncio
import types
from collections.abc import Awaitable, Callable
from typing import Any

import torch

Tensor = torch.Tensor
NO_TOP_K = (-1, 0)


def check_params(params: Any, prompt: int, longest: int, max_logprobs: int) -> int:
    """How many tokens to sample at most; raises ValueError for what vLLM refuses, or is not written here."""
    if not prompt:
        raise ValueError("the prompt is empty")
    if prompt >= longest:
        raise ValueError(f"the prompt has {prompt} tokens, and max_model_len is {longest}")
    if params.max_tokens is not None and params.max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {params.max_tokens}")
    if params.temperature < 0 or not 0 < params.top_p <= 1:
        raise ValueError(f"temperature={params.temperature}, top_p={params.top_p}: out of range")
    if params.top_k not in NO_TOP_K:
        raise ValueError(f"top_k={params.top_k} is not implemented on a CPU")
    if params.logprobs is not None and params.logprobs > max_logprobs:
        raise ValueError(f"logprobs={params.logprobs} is more than max_logprobs={max_logprobs}")
    room = longest - prompt
    return room if params.max_tokens is None else min(params.max_tokens, room)


def process(logits: Tensor, params: Any, ends: list[int], place: int) -> Tensor:
    """The logits [V] that are sampled from: no end before min_tokens, temperature, top_p."""
    logits = logits.float().clone()
    if place < params.min_tokens:
        logits[ends] = -torch.inf
    logits = logits / (params.temperature or 1.0)
    if params.top_p < 1:
        probs, order = logits.softmax(-1).sort(descending=True)
        logits[order[probs.cumsum(-1) - probs >= params.top_p]] = -torch.inf
    return logits


async def sample(
    model: Any,
    ids: list[int],
    params: Any,
    budget: int,
    ready: Callable[[], Awaitable[None]],
    *,
    processed: bool,
    **inputs: Any,
) -> tuple[list[int], list[dict[int, Any]], bool]:
    """Sampled tokens, their log-probs as vLLM returns them, and whether an end token ended them.

    `ready` is awaited before each token: it waits while generation is paused. As with vLLM's mode "keep",
    the keys and values of earlier tokens stay if weights change in between. `inputs` go to the first pass.
    """
    end = model.generation_config.eos_token_id
    ends = end if isinstance(end, list) else [end]
    tokens: list[int] = []
    log_probs: list[dict[int, Any]] = []
    step, cache = torch.tensor([ids]), None
    while len(tokens) < budget:
        await ready()
        with torch.no_grad():
            output = model(input_ids=step, past_key_values=cache, use_cache=True, **inputs)
        cache, inputs = output.past_key_values, {}
        raw = output.logits[0, -1]
        logits = process(raw, params, ends, len(tokens))
        greedy = params.temperature == 0
        token = int(logits.argmax()) if greedy else int(logits.softmax(-1).multinomial(1))
        given = (logits if processed else raw.float()).log_softmax(-1)
        tokens.append(token)
        log_probs.append({token: types.SimpleNamespace(logprob=float(given[token]))})
        if token in ends:
            return tokens, log_probs, True
        step = torch.tensor([[token]])
        await asyncio.sleep(0)  # another request's turn
    return tokens, log_probs, False
