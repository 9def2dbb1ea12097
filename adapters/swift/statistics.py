"""Token statistics of sampled completions, from hidden states of forwards that ms-swift makes anyway."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import is_peft_model

import credit
from credit.adapters import heads
from credit.adapters.fields import REFERENCE_FIELDS, needs_reference
from credit.adapters.randomness import is_random
from credit.adapters.swift import layout

Tensor = torch.Tensor
WAY_OUT = "use an estimator that reads no token statistics, such as grpo, and report the model"


@dataclass
class Forward:
    """What a model's forward of a micro-batch predicts the tokens of its mask from.

    ms-swift may run it in parts of the rows, and repeat the last one to keep step with other processes.
    """

    rows: int
    seen: int = 0  # rows
    head: Any = None  # a heads.Head
    parts: list[layout.Selection] = field(default_factory=list)
    ids: list[Tensor] = field(default_factory=list)
    log_probs: Any = None  # ms-swift's own, [B, T]


@dataclass
class Scoring:
    """The statistics of a batch, which grow while ms-swift computes log-probs of its micro-batches.

    `score` sets `forward` around a computation of ms-swift's, within which `capture` fills it.

    Attributes:
        names: which statistics.
        memory_mb: megabytes for tiles of logits; None: what `find_budget` finds.
        compares: whether one of them needs the reference.
        by_reference: whether the policy acts as the reference: without its adapter, or with another.
        forward: what is captured of the forward that runs; None: nothing.
        policy: the policy's forward of a micro-batch that waits for the reference's.
        found: of each micro-batch the statistics [B, T] by name; 0 outside the mask.
        seconds: what this took beside the forwards that ms-swift makes anyway.
    """

    names: Sequence[str]
    memory_mb: float | None
    compares: bool
    by_reference: bool = False
    forward: Forward | None = None
    policy: Forward | None = None
    found: list[dict[str, Tensor]] = field(default_factory=list)
    seconds: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time that passes within it to the seconds, once where one is within another."""
        before, started = self.seconds, time.perf_counter()
        yield
        self.seconds = before + time.perf_counter() - started


def start_scoring(names: Sequence[str], memory_mb: float | None) -> Scoring:
    """The scoring of statistics of those names, and of log-probs to compare with ms-swift's own."""
    names = tuple(dict.fromkeys((*names, "log_probs")))
    return Scoring(names, memory_mb, bool(set(names) & set(REFERENCE_FIELDS)))


def refuse_models(trainer: Any, estimator: credit.Estimator) -> None:
    """Raises ValueError unless there is a reference, and logits are hidden states times a plain weight."""
    reference = trainer.ref_model if needs_reference(estimator) else None
    if needs_reference(estimator) and reference is None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if not is_peft_model(model):
            raise ValueError(
                f"{estimator.name} compares the policy with a reference, and with this tuner there is none: "
                "its weights are no PEFT adapter that can be left out; use --tuner_type full or lora"
            )
        heads.refuse_trained_base(model, "--lora_bias none")
    for model in (trainer.model, reference):
        if model is not None:
            heads.find_head(find_base(trainer, model))


def find_base(trainer: Any, model: Any) -> Any:
    """The model of transformers within what accelerate and PEFT put around it."""
    return heads.find_base(trainer.accelerator.unwrap_model(model))


def score(trainer: Any, scoring: Scoring, model: Any, mask: Tensor, run: Callable[[], Any]) -> Any:
    """What `run`, ms-swift's own computation of log-probs of a micro-batch, returns.

    It leaves the statistics in `scoring` once policy and reference have run. A model with dropout or noise
    runs once more without it, since that makes a policy deviate from itself.
    """
    as_reference = scoring.by_reference or model is trainer.ref_model
    if as_reference and not scoring.compares:
        return run()
    forward = Forward(len(mask))
    adapted = not as_reference or trainer.ref_adapter_name is not None
    if _is_random(trainer, model, adapted):
        found = run()
        with scoring.timed(), _eval_mode(model), _captured(scoring, forward):
            forward.log_probs = run()[0]
    else:
        with _captured(scoring, forward):
            found = run()
        forward.log_probs = found[0]
    if scoring.compares and not as_reference:
        scoring.policy = forward
        return found
    with scoring.timed():
        policy, scoring.policy = scoring.policy or forward, None
        scoring.found.append(_compute(trainer, scoring, mask, policy, forward))
    return found


def capture(
    trainer: Any, model: Any, model_inputs: Any, grpo_batch: Any, scoring: Scoring | None
) -> AbstractContextManager[None]:
    """Within it a forward of some of the micro-batch's rows leaves its hidden states, if they are wanted."""
    forward = None if scoring is None else scoring.forward
    if forward is None or forward.seen == forward.rows:
        return nullcontext()
    mask, base = grpo_batch.completion_mask, find_base(trainer, model)
    places = layout.find_places(trainer, model_inputs, grpo_batch)
    rows, columns = places.rows[mask], places.columns[mask]
    forward.seen += len(mask)
    forward.head = heads.find_head(base)
    forward.ids.append(layout.find_ids(places, model_inputs["input_ids"])[mask])

    def receive(hidden: Tensor) -> None:
        forward.parts.append(layout.select_hidden(trainer, hidden, rows, columns))

    return heads.on_hidden_states(base, receive)


def _compute(
    trainer: Any, scoring: Scoring, mask: Tensor, policy: Forward, reference: Forward
) -> dict[str, Tensor]:
    """The statistics [B, T] by name."""
    own = torch.cat([part.own for part in policy.parts])
    hidden = _join_hidden(policy), _join_hidden(reference) if scoring.compares else None
    ids = torch.cat(policy.ids).to(own.device)[own]
    ours, theirs = policy.head, reference.head
    temperature = torch.full(ids.shape, trainer.temperature, device=ids.device)
    with heads.gather_zero3(ours.weight, ours.bias, theirs.weight, theirs.bias):
        whole = heads.gather_shards(ours), heads.gather_shards(theirs) if scoring.compares else None
        found = heads.compute_in_slices(scoring.names, hidden, whole, ids, temperature, scoring.memory_mb)
    joined = {name: layout.join_ranks(trainer, values, own).to(mask.device) for name, values in found.items()}
    heads.refuse_other_logits(policy.log_probs[mask], joined["log_probs"], WAY_OUT)
    return {
        name: values.new_zeros(mask.shape).masked_scatter(mask, values) for name, values in joined.items()
    }


def _join_hidden(forward: Forward) -> Tensor:
    return torch.cat([part.hidden for part in forward.parts])


@contextmanager
def _captured(scoring: Scoring, forward: Forward) -> Iterator[None]:
    scoring.forward = forward
    try:
        yield
    finally:
        scoring.forward = None


def _is_random(trainer: Any, model: Any, adapted: bool) -> bool:
    """Whether forwards in training are random; without its adapter, the adapter's dropout does not count."""
    return is_random(model, find_base(trainer, model).config, adapted, trainer.args.neftune_noise_alpha)


@contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    """Within it the model's parts are in eval mode; not itself, by which ms-swift knows what it is doing."""
    modes = {module: module.training for module in model.modules() if module is not model}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def by_reference(scoring: Scoring | None) -> Iterator[None]:
    """Within it a forward of the policy is the reference's."""
    if scoring is None:
        yield
        return
    scoring.by_reference = True
    try:
        yield
    finally:
        scoring.by_reference = False
