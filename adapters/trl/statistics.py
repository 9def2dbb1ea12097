"""Token statistics of sampled completions, from hidden states that TRL's own forward made."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import pad
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from credit.adapters import heads
from credit.adapters.fields import REFERENCE_FIELDS, list_shown, needs_reference
from credit.adapters.heads import Head, find_head, gather_shards, gather_zero3
from credit.adapters.trl import images
from credit.adapters.trl.forward import compute_hidden_states, find_base
from credit.adapters.trl.kept_forwards import ScoredRows, select_tokens, take_forwards
from credit.adapters.trl.micro_batches import micro_batches

Tensor = torch.Tensor


def refuse_fsdp1(trainer: Any) -> None:
    """Raises ValueError for FSDP 1, which frees its flat parameters at the end of a forward pass."""
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version == 1:
        raise ValueError(
            f"{trainer.credit_estimator.name} needs token statistics, which this adapter computes under "
            "FSDP 2 but not under FSDP 1; set fsdp_version: 2 in accelerate's config"
        )


def refuse_other_heads(trainer: Any) -> None:
    """Raises ValueError unless logits of policy and reference are hidden states times a plain weight.

    Weights that train beside an adapter are refused, too, where the reference is the model without it.
    """
    compares = needs_reference(trainer.credit_estimator)
    reference = trainer.ref_model if compares else None
    if compares and reference is None:
        peft = trainer.accelerator.unwrap_model(trainer.model)
        heads.refuse_trained_base(peft, "bias='none' in peft_config")
    for model in (trainer.model, reference):
        if model is not None:
            find_head(find_base(trainer, model))


def compute_statistics(
    trainer: Any, output: dict[str, Any], mask: Tensor, names: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """The statistics [B, T] of those names, or of `list_shown`, of TRL's batch; 0 outside the mask.

    Policy and reference see the same micro-batches in the same layout: TRL's own, where it has just run
    one of them. What it has not run is run in eval mode and without gradient. The heads are applied to the
    hidden states of the mask's tokens only, so no [B, T, V] tensor is made. The reference runs only if one
    of the names needs it.
    """
    names = list_shown(trainer.credit_estimator) if names is None else names
    found = []
    with torch.no_grad(), _eval_mode(trainer.model, trainer.args.gradient_checkpointing_kwargs):
        parts = take_forwards(trainer, output) or _split_rows(trainer, output)
        for part in parts:
            scored = _score_rows(trainer, part, mask[part.rows, : part.width].bool(), names)
            beyond = (0, mask.shape[1] - part.width)
            found.append({name: pad(field, beyond) for name, field in scored.items()})
    back = torch.cat([part.rows for part in parts]).argsort()
    return {name: torch.cat([each[name] for each in found])[back] for name in names}


def _split_rows(trainer: Any, output: dict[str, Any]) -> list[ScoredRows]:
    """The batch in micro-batches that neither the policy nor the reference has seen."""
    images.refuse_unknown_inputs(find_base(trainer, trainer.model), output)
    completion_mask = _attended_completions(trainer, output)
    prompt_width = output["prompt_ids"].shape[1]
    input_ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    attention_mask = torch.cat([output["prompt_mask"], completion_mask], dim=1)
    found = []
    for rows, width in micro_batches(trainer, prompt_width, completion_mask):
        columns = slice(prompt_width + width)
        inputs = {
            "input_ids": input_ids[rows, columns],
            "attention_mask": attention_mask[rows, columns],
            **images.select_inputs(output, rows, columns),
        }
        found.append(ScoredRows(rows, width, inputs))
    return found


def _attended_completions(trainer: Any, output: dict[str, Any]) -> Tensor:
    """The completion mask; with images, of all tokens that are not padding.

    Rows that leave the loss have an empty mask. If a tool returned images, their tokens stand in the
    completion, and a model counts those that are attended to when it places the images of a batch.
    """
    if not images.has_images(output):
        return output["completion_mask"]
    written = output["completion_ids"] != trainer._tokenizer.pad_token_id
    return output["completion_mask"] | written.to(output["completion_mask"].dtype)


def _score_rows(trainer: Any, part: ScoredRows, mask: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The statistics [B, T] of the rows, 0 outside the mask."""
    policy_hidden, policy = _find_hidden(trainer, trainer.model, part.inputs, part.policy, mask)
    reference_hidden: Tensor | None = None
    reference: Head | None = None
    if set(names) & set(REFERENCE_FIELDS):
        with _reference_model(trainer) as model:
            reference_hidden, reference = _find_hidden(trainer, model, part.inputs, part.reference, mask)
    memory_mb = trainer.args.statistics_memory_mb
    if memory_mb is not None and (part.policy is not None or part.reference is not None):
        memory_mb /= 2  # the other half is for the hidden states that were kept
    weights = [each for head in (policy, reference) if head for each in (head.weight, head.bias)]
    with gather_zero3(*weights):
        chosen = heads.compute_in_slices(
            names,
            (policy_hidden, reference_hidden),
            (gather_shards(policy), gather_shards(reference) if reference else None),
            part.inputs["input_ids"][:, -mask.shape[1] :][mask].to(policy_hidden.device),
            trainer.temperature,
            memory_mb,
        )
    return {name: _scatter(field, mask) for name, field in chosen.items()}


def _find_hidden(
    trainer: Any, model: Any, inputs: dict[str, Tensor], kept: Tensor | None, mask: Tensor
) -> tuple[Tensor, Head]:
    """The hidden states [M, D] that predict the mask's M tokens, kept or of a forward; and the head."""
    if kept is not None:
        head = find_head(find_base(trainer, model))
        return select_tokens(kept, inputs, mask).to(head.weight.device), head
    hidden, head = compute_hidden_states(trainer, model, inputs)
    before = hidden[:, -mask.shape[1] - 1 : -1]
    return before[mask.to(before.device)].to(head.weight.device), head


@contextmanager
def _reference_model(trainer: Any) -> Iterator[Any]:
    """The model that gives the reference's distribution; with LoRA, the policy without its adapter."""
    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    peft = trainer.accelerator.unwrap_model(trainer.model)
    with use_adapter(peft, adapter_name="ref" if "ref" in peft.peft_config else None):
        yield trainer.model


@contextmanager
def _eval_mode(model: Any, gradient_checkpointing_kwargs: Any) -> Iterator[None]:
    training = model.training
    model.eval()  # dropout would make a policy deviate from itself
    try:
        with disable_gradient_checkpointing(model, gradient_checkpointing_kwargs):
            yield
    finally:
        model.train(training)


def _scatter(values: Tensor, mask: Tensor) -> Tensor:
    return values.new_zeros(mask.shape).to(mask.device).masked_scatter(mask, values.to(mask.device))
