"""The reference's logits on Megatron, for each micro-batch of the policy's pass.

Its forward runs within the policy's. Where the layers lie in the stages of a pipeline it cannot, and runs
whole before the policy's: the last stage keeps the states before the head in the host's memory (tokens x
hidden size, divided among the ranks of sequence parallelism), and applies the head to them when the policy's
logits of that micro-batch are there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from verl.utils import tensordict_utils as tu
from verl.utils.megatron_utils import unwrap_model

from credit.adapters.verl.logits_hook import pass_logits, zero_loss

Tensor = torch.Tensor
# verl's settings of a batch for neither entropy nor log-probs, whose functions write into the logits.
LOGITS_ALONE = {"calculate_entropy": False, "calculate_sum_pi_squared": False, "distillation_only": True}


class HeadCall(NamedTuple):
    """A call of the model's head on the last stage, with the states in the host's memory."""

    hidden: Tensor
    device: torch.device
    options: dict[str, Any]


class Kept(NamedTuple):
    """What the last stage keeps of a micro-batch."""

    input_ids: Tensor  # nested
    call: HeadCall


class HeadAlone:
    """Stands for a model whose layers have run: a call gives the logits of the kept states."""

    def __init__(self, model: Any, call: HeadCall) -> None:
        self.model, self.call = model, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **_: Any) -> Tensor:
        hidden = self.call.hidden.to(self.call.device)
        logits, _bias = _find_head(self.model)(hidden, **self.call.options)
        return logits.transpose(0, 1).contiguous().float()  # as megatron-core's models return them


def run_within(actor: Any, reference: Any, data: Any) -> Tensor:
    """The logits of the policy's micro-batch, in its layout, so that equal models deviate by exactly 0."""
    engine = (reference or actor).engine
    with _without_adapter(actor, reference):
        return _forward_logits(engine, engine.module[0], data)


def run_before(actor: Any, reference: Any, data: Any) -> Callable[[Any], Tensor]:
    """Runs the reference; the function gives the logits of each micro-batch, in the order of the policy's."""
    worker = reference or actor
    model = unwrap_model(worker.engine.module[0])
    calls, kept = list[HeadCall](), list[Kept]()
    own = _copy_for(actor, data)
    tu.assign_non_tensor(own, no_lora_adapter=reference is None, **LOGITS_ALONE)
    with _record_calls(model, calls), pass_logits(worker, own, _make_keeper(calls, kept)):
        worker.infer_batch(own)

    def find(data: Any) -> Tensor:
        first = kept.pop(0)
        if not torch.equal(first.input_ids.values(), data["input_ids"].values()):
            raise RuntimeError("verl split the batch into other micro-batches for policy than for reference")
        with _without_adapter(actor, reference):
            return _forward_logits(worker.engine, HeadAlone(model, first.call), data)

    return find


def _without_adapter(actor: Any, reference: Any) -> Any:
    return actor.engine.disable_adapter() if reference is None else nullcontext()


def _forward_logits(engine: Any, model: Any, data: Any) -> Tensor:
    captured: list[Tensor] = []

    def capture(*, student_logits: Tensor, **_: Any) -> dict[str, Any]:
        captured.append(student_logits)
        return {}

    data = data.clone(recurse=False)
    tu.assign_non_tensor(data, **LOGITS_ALONE)
    engine.forward_step(iter([data]), model, capture, zero_loss)
    return captured[0]


def _copy_for(actor: Any, data: Any) -> Any:
    """The batch with the settings by which the actor's `infer_batch` will split it."""
    config = actor.engine_config
    given = {
        "use_dynamic_bsz": config.use_dynamic_bsz,
        "max_token_len_per_gpu": config.infer_max_token_len_per_gpu,
        "micro_batch_size_per_gpu": config.infer_micro_batch_size_per_gpu,
    }
    present = set(data.keys())
    data = data.clone(recurse=False)
    tu.assign_non_tensor(data, **{name: value for name, value in given.items() if name not in present})
    return data


@contextmanager
def _record_calls(model: Any, calls: list[HeadCall]) -> Iterator[None]:
    """Appends each call of the model's head; only the last stage has one."""
    if not model.post_process:
        yield
        return

    def record(_: Any, arrays: tuple[Tensor, ...], options: dict[str, Any]) -> None:
        calls.append(HeadCall(arrays[0].cpu(), arrays[0].device, options))

    handle = _find_head(model).register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _make_keeper(calls: list[HeadCall], kept: list[Kept]) -> Callable[..., Any]:
    """A loss function that keeps the last call of the head with the ids of its micro-batch."""

    def keep(*, data: Any, student_logits: Tensor | None = None, **_: Any) -> Any:
        if student_logits is None:
            return zero_loss(data)
        kept.append(Kept(data["input_ids"], calls.pop()))
        return {}

    return keep


def _find_head(model: Any) -> Any:
    return getattr(model, "language_model", model).output_layer
