"""Exact token statistics in SkyRL's pass for the old log-probs, from two models' hidden states."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from credit.adapters import heads
from credit.adapters.heads import Head, find_base, find_head, on_hidden_states
from credit.adapters.skyrl import layout
from credit.adapters.skyrl.reference import autocast

Tensor = torch.Tensor
WAY_OUT = "use an estimator that reads no token statistics, such as credit_grpo, and report the model"


class Request(NamedTuple):
    """What the trainer asks the policy's workers for.

    The names are those of statistics; of the reference it says the path of the weights, or None if no
    statistic needs one.
    """

    names: tuple[str, ...]
    reference: str | None
    memory_mb: float | None


@dataclass
class Forward:
    """What a forward of a model left: its inputs, and the hidden states before its head."""

    positional: Sequence[Any] = ()
    named: dict[str, Any] = field(default_factory=dict)
    hidden: Tensor | None = None


@contextmanager
def captured(model: Any) -> Iterator[Forward]:
    """Within it a forward of the model, which may have a LoRA adapter, is kept."""
    forward = Forward()

    def keep_inputs(_: Any, positional: Any, named: Any) -> None:
        forward.positional, forward.named = positional, named

    def keep_hidden(hidden: Tensor) -> None:
        forward.hidden = hidden

    handle = model.register_forward_pre_hook(keep_inputs, with_kwargs=True)
    try:
        with on_hidden_states(find_base(model), keep_hidden):
            yield forward
    finally:
        handle.remove()


def run_reference(model: Any, policy: Forward) -> Tensor:
    """The reference's hidden states for the policy's own inputs, so that both see the same layout.

    Its head gets one position, so that no logits are made of the others.
    """
    kept = list[Tensor]()

    def receive(hidden: Tensor) -> Tensor:
        kept.append(hidden)
        return hidden[:, :1]

    with autocast(), on_hidden_states(find_base(model), receive):
        model(*policy.positional, **policy.named)
    return kept[0]


def read_head(model: Any, hidden: Tensor) -> Head:
    """The whole head in the precision of the hidden states, as the model itself uses it.

    The master weights of SkyRL's policy are float32, which FSDP rounds for each forward.
    """
    head = heads.gather_shards(find_head(find_base(model)), hidden.device)
    bias = None if head.bias is None else head.bias.to(hidden.dtype)
    return head._replace(weight=head.weight.to(hidden.dtype), bias=bias)


@torch.no_grad()
def score(
    worker: Any, request: Request, micro_batch: Any, mask: Tensor, policy: Forward, log_probs: Tensor
) -> dict[str, Tensor]:
    """The statistics [n, T] of a micro-batch by name, 0 outside its loss mask [n, T].

    Args:
        policy: the policy's forward of it.
        log_probs: SkyRL's own [n, T] of that forward, with which those of the hidden states are compared.
    """
    ours = policy.hidden
    if ours is None:
        raise RuntimeError(f"the forward of SkyRL's policy did not reach its head; {WAY_OUT}")
    packed = worker.model.remove_microbatch_padding
    places = layout.find_places(
        micro_batch["sequences"], micro_batch["attention_mask"], mask.to(ours.device), packed
    )
    own, head = layout.select_hidden(places, ours), read_head(worker.model.model, ours)
    theirs, other = None, None
    reference, temperature = worker.credit_reference, worker.cfg.algorithm.temperature
    # FSDP may own the memory of a whole head, which it frees when the reference is put away.
    with nullcontext() if reference is None else reference.ready() as model:
        if model is not None:
            theirs = layout.select_hidden(places, run_reference(model, policy))
            other = read_head(model, theirs)
        found = _compute(request, (own, theirs), (head, other), places.ids, temperature)
    heads.refuse_other_logits(log_probs[mask].to(own.device), found["log_probs"], WAY_OUT)
    return {name: layout.put_back(places, values).cpu() for name, values in found.items()}


def _compute(
    request: Request,
    hidden: tuple[Tensor, Tensor | None],
    both: tuple[Head, Head | None],
    ids: Tensor,
    temperature: float,
) -> dict[str, Tensor]:
    """The statistics [M] by name; a micro-batch that SkyRL adds as padding has no tokens."""
    if not len(ids):
        return {name: torch.zeros(0, device=ids.device) for name in request.names}
    degrees = torch.full(ids.shape, float(temperature), device=ids.device)
    return heads.compute_in_slices(request.names, hidden, both, ids, degrees, request.memory_mb)
