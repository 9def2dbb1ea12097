"""Token statistics from the hidden states that FSDP engines have before the heads of policy and reference."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id

from credit.adapters.fields import REFERENCE_FIELDS
from credit.adapters.heads import on_hidden_states, refuse_other_logits
from credit.adapters.verl import layout
from credit.adapters.verl.logits_hook import KEY
from credit.adapters.verl.whole_heads import find_model, whole_heads

Tensor = torch.Tensor
WAY_OUT = "use +algorithm.credit.divergence=binary, or report the model"


class Pass(NamedTuple):
    """Two of verl's engines, and what is computed of them."""

    policy: Any
    reference: Any  # None: the policy without its LoRA adapter, if the two are compared
    compares: bool
    fields: Sequence[str]
    memory_mb: float | None


@contextmanager
def collect_statistics(
    actor: Any, reference: Any, data: Any, fields: Sequence[str], memory_mb: float | None
) -> Iterator[None]:
    """As `statistics.collect_statistics`; tiles of logits take `memory_mb`, and no others are made here."""
    compares = bool(set(fields) & set(REFERENCE_FIELDS))
    other = reference.engine if compares and reference is not None else None
    scored = Pass(actor.engine, other, compares, fields, memory_mb)
    step = partial(_forward_step, scored, actor.engine.forward_step)
    evaluating = nullcontext() if other is None else other.eval_mode()
    with evaluating, _replaced(actor.engine, "forward_step", step):
        yield


def _forward_step(scored: Pass, step: Any, micro_batch: Any, loss_function: Any, forward_only: bool) -> Any:
    """The engine's own step, with the statistics among its outputs."""
    micro_batch, found = micro_batch.to(get_device_id()), dict[str, Tensor]()
    tokens = layout.read_tokens(scored.policy, micro_batch)
    names = tuple(dict.fromkeys((*scored.fields, "log_probs")))

    def score(hidden: Tensor, other: Tensor | None) -> None:
        with whole_heads(scored.policy, scored.reference, scored.compares) as heads:
            found.update(layout.compute(names, tokens, (hidden, other), heads, scored.memory_mb))

    with on_hidden_states(find_model(scored.policy), _make_receiver(scored, step, micro_batch, score)):
        loss, output = step(micro_batch, loss_function=loss_function, forward_only=forward_only)
    nested = layout.nest(scored.policy, micro_batch, tokens, found)
    refuse_other_logits(output["model_output"]["log_probs"].values(), nested["log_probs"].values(), WAY_OUT)
    output["model_output"] |= {KEY + name: nested[name] for name in scored.fields}
    return loss, output


def _make_receiver(scored: Pass, step: Any, micro_batch: Any, score: Any) -> Callable[[Tensor], None]:
    """What is called with the policy's hidden states, within its forward.

    FSDP keeps a head whole within a forward of its own model alone, so the reference runs there. A model
    cannot run within itself: without its adapter the policy has run before.
    """
    if not scored.compares:
        return lambda hidden: score(hidden, None)
    if scored.reference is not None:
        engine = scored.reference
        return lambda hidden: _run(engine, engine.forward_step, micro_batch, partial(score, hidden))
    captured: list[Tensor] = []
    with scored.policy.disable_adapter():
        _run(scored.policy, step, micro_batch, captured.append)
    return lambda hidden: score(hidden, captured[0])


def _run(engine: Any, step: Any, micro_batch: Any, receive: Callable[[Tensor], None]) -> None:
    """A forward of the reference whose head gets two positions, so that it makes no logits of the others.

    verl's fused kernels make none and want as many positions as labels.
    """
    fused = tu.get_non_tensor_data(micro_batch, key="use_fused_kernels", default=False)

    def pass_on(hidden: Tensor) -> Tensor | None:
        receive(hidden)
        return None if fused else hidden[:, :2]

    without_outputs = _replaced(engine, "prepare_model_outputs", lambda **_: {})
    with on_hidden_states(find_model(engine), pass_on), without_outputs:
        step(micro_batch, loss_function=None, forward_only=True)


@contextmanager
def _replaced(engine: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """The engine with another function of that name."""
    own = vars(engine)
    before = own.get(name)
    own[name] = function
    try:
        yield
    finally:
        del own[name]
        if before is not None:
            own[name] = before
