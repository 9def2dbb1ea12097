"""Token statistics from the logits of policy and reference, taken where verl's engines have them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from verl.utils import tensordict_utils as tu

import credit
from credit.adapters.fields import REFERENCE_FIELDS

Tensor = torch.Tensor
KEY = "credit_"  # of the statistics in verl's batch


@contextmanager
def collect_statistics(actor: Any, reference: Any, fields: Sequence[str]) -> Iterator[None]:
    """Adds the named TokenStatistics to what the actor's next `infer_batch` returns, as credit_<name>.

    `actor` and `reference` are verl's TrainingWorkers; without a reference the actor's model with
    its LoRA adapter off is the reference. With `distillation_use_topk` set on the batch, an engine
    hands its logits to the loss function, then gathers, unpads and nests what comes back.
    """
    loss_function = actor.loss_fn
    actor.set_loss_fn(_make_scorer(actor.engine, reference and reference.engine, fields))
    try:
        with nullcontext() if reference is None else reference.engine.eval_mode():
            yield
    finally:
        actor.set_loss_fn(loss_function)


def _make_scorer(actor: Any, reference: Any, fields: Sequence[str]) -> Callable[..., Any]:
    compare = bool(set(fields) & set(REFERENCE_FIELDS))

    def score(*, data: Any, student_logits: Tensor | None = None, **_: Any) -> Any:
        if student_logits is None:  # the engine's second call, for a loss
            return _zero_loss(data)
        logits = student_logits[0]
        other = _reference_logits(actor, reference, data) if compare else logits
        # The next tokens, in this engine's packing and on this rank's shard of the sequence.
        next_ids = actor.prepare_model_inputs(data)[1]["input_ids_rmpad_rolled"]
        found = credit.token_statistics(logits, other, next_ids.to(logits.device))
        return {KEY + name: getattr(found, name)[None] for name in fields}

    return score


def _reference_logits(actor: Any, reference: Any, data: Any) -> Tensor:
    """The reference's logits [M, V] of the same micro-batch, so that equal models deviate by exactly 0."""
    captured: list[Tensor] = []

    def capture(*, data: Any, student_logits: Tensor | None = None, **_: Any) -> Any:
        if student_logits is None:
            return _zero_loss(data)
        captured.append(student_logits[0])
        return {}

    data = data.clone(recurse=False)
    tu.assign_non_tensor(data, calculate_entropy=False, distillation_only=True)
    with actor.disable_adapter() if reference is None else nullcontext():
        (reference or actor).forward_step(data, loss_function=capture, forward_only=True)
    return captured[0]


def _zero_loss(data: Any) -> tuple[Tensor, dict[str, Any]]:
    return torch.zeros((), device=data["input_ids"].device), {}
