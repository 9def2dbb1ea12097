"""Token statistics from the logits that FSDP engines have of policy and reference."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from verl.utils import tensordict_utils as tu

import credit
from credit.adapters.fields import REFERENCE_FIELDS, compute_by_name

Tensor = torch.Tensor
KEY = "credit_"  # precedes the name of a statistic in verl's batch


@contextmanager
def collect_statistics(actor: Any, reference: Any, data: Any, fields: Sequence[str]) -> Iterator[None]:
    """As `statistics.collect_statistics`.

    The reference's forward runs within the policy's.
    """
    score = _make_scorer(actor.engine, reference and reference.engine, fields)
    with (
        pass_logits(actor, data, score),
        nullcontext() if reference is None else reference.engine.eval_mode(),
    ):
        yield


@contextmanager
def pass_logits(actor: Any, data: Any, score: Callable[..., Any]) -> Iterator[None]:
    """Lets `score` see the logits of the actor's next `infer_batch(data)`, and add to its results.

    With `distillation_use_topk` set on the batch, an engine passes its logits to the loss function, and
    gathers, unpads and nests what that returns.
    """
    tu.assign_non_tensor(data, distillation_use_topk=True, compute_loss=True)
    loss_function = actor.loss_fn
    actor.set_loss_fn(score)
    try:
        yield
    finally:
        actor.set_loss_fn(loss_function)


def _make_scorer(actor: Any, reference: Any, fields: Sequence[str]) -> Callable[..., Any]:
    compare = bool(set(fields) & set(REFERENCE_FIELDS))

    def score(*, data: Any, student_logits: Tensor | None = None, **_: Any) -> Any:
        if student_logits is None:  # the engine calls a second time, for the loss
            return zero_loss(data)
        logits = student_logits[0]
        other = _reference_logits(actor, reference, data) if compare else None
        # The ids of the next tokens, packed as the logits are and on this rank's shard of the sequence.
        next_ids = actor.prepare_model_inputs(data)[1]["input_ids_rmpad_rolled"]
        found = compute_by_name(credit.token_statistics, fields, logits, other, next_ids.to(logits.device))
        return {KEY + name: array[None] for name, array in found.items()}

    return score


def _reference_logits(actor: Any, reference: Any, data: Any) -> Tensor:
    """The reference's logits [M, V] of the same micro-batch, so that equal models deviate by exactly 0."""
    captured: list[Tensor] = []

    def capture(*, data: Any, student_logits: Tensor | None = None, **_: Any) -> Any:
        if student_logits is None:
            return zero_loss(data)
        captured.append(student_logits[0])
        return {}

    data = data.clone(recurse=False)
    tu.assign_non_tensor(data, calculate_entropy=False, distillation_only=True)
    with actor.disable_adapter() if reference is None else nullcontext():
        (reference or actor).forward_step(data, loss_function=capture, forward_only=True)
    return captured[0]


def zero_loss(data: Any) -> tuple[Tensor, dict[str, Any]]:
    """What an engine takes for a loss and its metrics, where none is wanted."""
    return torch.zeros((), device=data["input_ids"].device), {}
