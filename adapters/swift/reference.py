"""A warning where the reference is not the model that training begins with, and nobody asked for that."""

import warnings
from typing import Any

import credit
from credit.adapters.early_deviation import find_early_deviation


def warn_of_another_reference(trainer: Any, given: credit.Rollouts) -> None:
    """Warns if the policy deviates before the first step from a reference that the user has not named."""
    found = None if _is_named(trainer) else find_early_deviation(trainer, given)
    if found is None:
        return
    way_out = (
        "it is the model without its adapter. If the adapter began with trained weights, name them by "
        "--ref_adapters; if it changes the model's own at its start (pissa, olora), set --init_weights true"
        if trainer.ref_model is None
        else "name it by --ref_model"
    )
    warnings.warn(f"{found}; {way_out}", stacklevel=2)


def _is_named(trainer: Any) -> bool:
    """Whether the reference comes from another place than the model."""
    if trainer.ref_model is None:
        return trainer.ref_adapter_name is not None
    models = (trainer.accelerator.unwrap_model(model) for model in (trainer.model, trainer.ref_model))
    return len({model.config._name_or_path for model in models}) > 1
