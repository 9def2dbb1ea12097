"""The reference model: loaded by TRL although its loss has no KL term, or given by the user."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import disable_dropout_in_model

import credit
from credit.adapters.early_deviation import find_early_deviation
from credit.adapters.fields import needs_reference
from credit.adapters.trl import forward


def refuse_lost_reference(estimator: credit.Estimator, model: Any, peft_config: Any) -> None:
    """Raises ValueError if TRL could not load the reference, since the model has no path to load it from."""
    from_path = isinstance(model, str) or model.config._name_or_path
    if needs_reference(estimator) and not (from_path or peft_config or is_peft_model(model)):
        raise ValueError(
            f"{estimator.name} compares the policy with a reference, which TRL loads from the path of the "
            "model, and this model has none; give the trainer ref_model=, such as a copy of it"
        )


@contextmanager
def load_reference(args: Any, estimator: credit.Estimator | None, given: Any) -> Iterator[None]:
    """Within it a trainer of TRL that is built has a reference if the estimator needs one and none is given.

    A beta other than 0 makes TRL load, prepare and synchronize a reference; its loss later uses the
    reference if the trainer's beta is not 0.
    """
    if args is None:
        yield
        return
    if given is not None and args.sync_ref_model:
        raise ValueError("sync_ref_model cannot follow a given ref_model; leave one of them out")
    if given is not None and not isinstance(given, torch.nn.Module):
        raise TypeError(
            f"ref_model is {given!r:.80}, a {type(given).__name__}; expected a model, such as what "
            "AutoModelForCausalLM.from_pretrained(path) returns"
        )
    beta = args.beta
    if given is not None:
        args.beta = 0.0
    elif estimator is not None and needs_reference(estimator) and beta == 0.0:
        args.beta = 1.0
    try:
        yield
    finally:
        args.beta = beta


def attach_reference(trainer: Any, model: Any) -> None:
    """Prepares a given reference as TRL prepares its own."""
    model.requires_grad_(False)
    if trainer.args.disable_dropout:
        disable_dropout_in_model(model)
    forward.prepare_head(trainer, model)
    if trainer.is_deepspeed_enabled:
        trainer.ref_model = prepare_deepspeed(model, trainer.accelerator)
    elif trainer.is_fsdp_enabled:
        trainer.ref_model = prepare_fsdp(model, trainer.accelerator)
    else:
        trainer.ref_model = trainer.accelerator.prepare_model(model, evaluation_mode=True)
    trainer.ref_model.eval()


def warn_of_another_reference(trainer: Any, given: credit.Rollouts) -> None:
    """Warns if the policy deviates before the first step of training from the reference that TRL loaded."""
    found = None if trainer.credit.reference_given else find_early_deviation(trainer, given)
    if found is not None:
        path = trainer.model.config._name_or_path
        warnings.warn(
            f"{found}. TRL loads the reference from {path!r}: if the policy is another model, give the "
            "trainer ref_model=",
            stacklevel=2,
        )
