"""Hidden states of the forwards by which TRL itself scores a generated batch, kept for token statistics.

TRL runs the policy without gradient where it needs log-probs of the policy that sampled, and the reference
where its loss has a KL term. Token statistics of the same batch take the hidden states of those forwards, and
what TRL did not run is run on exactly the inputs that TRL gave the other, so that equal models deviate by
exactly 0. They run policy and reference by themselves, in rows of similar length, where

- TRL ran neither,
- the forward was random: TRL leaves the policy in training mode, where dropout is active,
- the batch was merged from several generations (dynamic_sampling="resample"), or
- the trainer is one that Unsloth generated, or with `use_liger_kernel` one before TRL 1.15, which do not
  call the model as a whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from accelerate.utils import is_peft_model

from credit.adapters import heads
from credit.adapters.fields import needed_statistics, needs_reference
from credit.adapters.memory import find_budget
from credit.adapters.randomness import is_random
from credit.adapters.trl.forward import FUSED, find_base
from credit.adapters.trl.unsloth import find_trainer

Tensor = torch.Tensor


class Forward(NamedTuple):
    """A forward of some rows: the arrays that the model was called with, and hidden states [M, D].

    These are the ones that the M tokens are predicted from which completions have and the model attends to.
    """

    inputs: dict[str, Tensor]
    hidden: Tensor


@dataclass
class KeptForwards:
    """The forwards of one generated batch, in the order of its rows.

    Attributes:
        memory_mb: megabytes of hidden states that stay on the device; further ones go to the CPU's memory.
        policy: those of the policy.
        reference: those of the reference.
        used_mb: megabytes that have been kept on the device.
    """

    memory_mb: float
    policy: list[Forward] = field(default_factory=list)
    reference: list[Forward] = field(default_factory=list)
    used_mb: float = 0.0

    def store(self, hidden: Tensor) -> Tensor:
        """The hidden states, where they are to stay."""
        self.used_mb += hidden.nbytes / 1e6
        return hidden if self.used_mb <= self.memory_mb else hidden.cpu()


class ScoredRows(NamedTuple):
    """Rows that policy and reference see together, and the columns before which their completions end.

    Attributes:
        rows: their places in the batch.
        width: the number of columns.
        inputs: what the models are called with.
        policy: hidden states [M, D] of the policy that were kept; None: it is to be run.
        reference: those of the reference.
    """

    rows: Tensor
    width: int
    inputs: dict[str, Tensor]
    policy: Tensor | None = None
    reference: Tensor | None = None


@contextmanager
def keep_forwards(trainer: Any, resamples: bool) -> Iterator[None]:
    """Within it the trainer keeps what token statistics can take from TRL's forwards of a generated batch."""
    liger = trainer.args.use_liger_kernel and not FUSED
    generated = find_trainer(type(trainer)) is not None
    if needed_statistics(trainer.credit.estimator) and not (resamples or liger or generated):
        budget = find_budget(trainer.args.statistics_memory_mb, trainer.accelerator.device)
        trainer.credit.kept = KeptForwards(budget / 2)  # the other half is for tiles of logits
    try:
        yield
    finally:
        trainer.credit.kept = None


@contextmanager
def keep_hidden(trainer: Any, model: Any, tokens: int) -> Iterator[None]:
    """Within it the forwards of a model are kept, if they can serve; of the last `tokens` columns."""
    forwards = _find_place(trainer, model)
    if forwards is None:
        yield
        return
    kept, given = trainer.credit.kept, dict[str, Tensor]()

    def note_inputs(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        given.clear()
        # The labels are of the head alone.
        given.update((n, v) for n, v in named.items() if isinstance(v, Tensor) and n != "labels")

    def receive(hidden: Tensor) -> None:
        if not given.keys() >= {"input_ids", "attention_mask"}:  # as a trainer of the user's may call it
            return
        attended = _attended(given, tokens).to(hidden.device)
        forwards.append(Forward(given.copy(), kept.store(hidden[:, -tokens - 1 : -1][attended])))

    handle = model.register_forward_pre_hook(note_inputs, with_kwargs=True)
    try:
        with heads.on_hidden_states(find_base(trainer, model), receive):
            yield
    finally:
        handle.remove()


def take_forwards(trainer: Any, output: dict[str, Any]) -> list[ScoredRows]:
    """TRL's forwards of all rows of its batch; empty if none was kept."""
    kept = trainer.credit.kept
    if kept is None:
        return []
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    policy, reference = (each if _is_of(each, ids) else [] for each in (kept.policy, kept.reference))
    found, first, width = list[ScoredRows](), 0, output["completion_ids"].shape[1]
    for ours, theirs in zip_longest(policy, reference):
        inputs = (ours or theirs).inputs
        rows = torch.arange(first, first + len(inputs["input_ids"]), device=ids.device)
        hidden = [each and each.hidden for each in (ours, theirs)]
        found.append(ScoredRows(rows, width, inputs, *hidden))
        first += len(rows)
    return found


def select_tokens(hidden: Tensor, inputs: dict[str, Tensor], mask: Tensor) -> Tensor:
    """Of kept hidden states those that predict the tokens of the mask [B, T]."""
    return hidden[mask[_attended(inputs, mask.shape[1])].to(hidden.device)]


def _is_of(forwards: list[Forward], ids: Tensor) -> bool:
    """Whether the forwards, together, were run on the rows of these ids."""
    found = [each.inputs["input_ids"] for each in forwards]
    return bool(found) and torch.equal(torch.cat(found), ids)


def _attended(inputs: dict[str, Tensor], tokens: int) -> Tensor:
    return inputs["attention_mask"][:, -tokens:].bool()


def _find_place(trainer: Any, model: Any) -> list[Forward] | None:
    """The list for the forwards of this model; None: they cannot serve."""
    kept = trainer.credit.kept
    if kept is None or (model is not trainer.model and model is not trainer.ref_model):
        return None
    as_reference = model is trainer.ref_model
    if not as_reference and is_peft_model(trainer.accelerator.unwrap_model(model)):
        layer = _find_tuned_layer(model)
        if layer is None:  # of virtual tokens, which stand before the others
            return None
        as_reference = layer.disable_adapters or "ref" in layer.active_adapters
    if as_reference and not needs_reference(trainer.credit.estimator):
        return None
    config, alpha = find_base(trainer, model).config, trainer.args.neftune_noise_alpha
    if is_random(model, config, not as_reference, alpha):
        return None
    return kept.reference if as_reference else kept.policy


def _find_tuned_layer(model: Any) -> Any:
    """A layer of PEFT's, which says whether the adapter takes part; None: the adapter has none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return next((each for each in model.modules() if isinstance(each, BaseTunerLayer)), None)
