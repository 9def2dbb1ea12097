"""TRL's trainer as Unsloth replaces it: how it is recognised, what is expected of it, and what is refused.

Where Unsloth finds a GPU, its import puts a class that it generates in the place of `trl.GRPOTrainer`.
"""

import inspect
from pkgutil import resolve_name
from typing import Any

from credit.adapters.hooks import check_framework, check_version
from credit.adapters.trl.hooks import (
    FRAMEWORK,
    FUNCTIONS,
    TRAINER,
    UNSLOTH,
    UNSLOTH_FUNCTIONS,
    UNSLOTH_TRAINER,
)

LOSS = "UnslothEfficientGRPO"
"""The function to which the loss of the generated trainer hands all that it is computed from."""


def check_installed() -> None:
    """Raises ImportError unless TRL, and Unsloth if it has replaced TRL's trainer, are as credit expects."""
    check_version(FRAMEWORK)
    if find_trainer(resolve_name(TRAINER)) is None:
        check_framework(FRAMEWORK, FUNCTIONS)
        return
    # The methods that it generates are compared, not those around them, which take any arguments.
    moved = {UNSLOTH_TRAINER if owner == TRAINER else owner: FUNCTIONS[owner] for owner in FUNCTIONS}
    check_framework(FRAMEWORK, moved)
    check_framework(UNSLOTH, UNSLOTH_FUNCTIONS)


def find_trainer(kind: type) -> type | None:
    """The class, of those that a trainer is made of, with a loss that Unsloth generated; None: none has."""
    return next((each for each in kind.__mro__ if LOSS in loss_globals(each)), None)


def loss_globals(kind: type) -> dict[str, Any]:
    """What the loss that this very class defines finds by name; empty if it defines none."""
    function = inspect.unwrap(vars(kind).get("compute_loss"))  # type: ignore[arg-type]
    return getattr(function, "__globals__", {})


def refuse_late_import(kind: type) -> None:
    """Raises ImportError if a class comes from TRL's own trainer, and Unsloth has replaced that since."""
    if find_trainer(resolve_name(TRAINER)) is not None and find_trainer(kind) is None:
        raise ImportError(
            f"{kind.__name__} comes from TRL's own trainer, which Unsloth has replaced since: unsloth was "
            "imported after trl or credit. Import unsloth before both, as it asks for itself, or leave it out"
        )


def refuse(args: Any, kind: type, peft_config: Any = None, **_: Any) -> None:
    """Raises ValueError for options that cannot work with the trainer that Unsloth generates."""
    if find_trainer(kind) is None:
        return
    if args.dynamic_sampling == "resample":
        raise ValueError(
            "dynamic_sampling='resample' puts batches of several generations together, and Unsloth lays each "
            "out by its longest prompt; use dynamic_sampling='filter' with Unsloth"
        )
    if peft_config is not None:
        raise ValueError(
            "Unsloth's trainer ignores peft_config, and would train the whole model; leave it out, and give "
            "the trainer the model that FastLanguageModel.get_peft_model returns"
        )
