"""ms-swift's pipeline, extended by checks before a model is loaded and by the reference."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from swift.arguments import RLHFArguments
from swift.pipelines.train.rlhf import SwiftRLHF
from swift.pipelines.train.sft import SwiftSft
from swift.trainers import TrainerFactory

import credit
from credit.adapters.fields import needs_reference
from credit.adapters.swift import options
from credit.adapters.swift.choice import find_choice

TRAINER = "credit.adapters.swift.trainer.CreditGRPOTrainer"
EXTENDED = "credit_extended"  # the attribute of a function of ms-swift's that is extended
REFERENCE = "credit_reference"  # the attribute of ms-swift's arguments for the reference that the user names


def install() -> None:
    """Lets runs of ms-swift in this process take their advantages from the estimator that was chosen."""
    TrainerFactory.TRAINER_MAPPING["grpo"] = TRAINER
    _extend(RLHFArguments, "_check_grpo", _keep_reference)
    _extend(SwiftRLHF, "_prepare_model_tokenizer", _prepare)
    _extend(SwiftSft, "_prepare_model_tokenizer", _refuse_other_training)


def _extend(kind: type, name: str, before: Callable[[Any, credit.Estimator], None]) -> None:
    """Calls `before` with the object and the estimator before each call of its class's function, once."""
    function = getattr(kind, name)
    if hasattr(function, EXTENDED):
        return

    @wraps(function)
    def extended(self: Any, *positional: Any, **named: Any) -> Any:
        choice = find_choice()
        if choice is not None:
            before(self, choice.estimator)
        return function(self, *positional, **named)

    setattr(extended, EXTENDED, True)
    setattr(kind, name, extended)


def _keep_reference(args: Any, _: credit.Estimator) -> None:
    """Remembers the reference that the user names, which ms-swift forgets where its loss has no KL term."""
    setattr(args, REFERENCE, (args.ref_model, args.ref_model_type, args.ref_model_revision))


def _prepare(pipeline: Any, estimator: credit.Estimator) -> None:
    """Refuses what cannot work with the estimator, and names the reference that it needs."""
    args = pipeline.args
    _refuse_other_type(args, estimator)
    options.refuse(estimator, args)
    if needs_reference(estimator) and args.beta == 0.0:  # otherwise ms-swift sees to the reference itself
        _name_reference(args, estimator)


def _name_reference(args: Any, estimator: credit.Estimator) -> None:
    """The reference as ms-swift names it where its loss has a KL term."""
    if not hasattr(args, REFERENCE):
        raise ValueError(
            f"{estimator.name} compares the policy with a reference, and these arguments were made before "
            "train_with was called, so that a --ref_model among them is lost; call train_with first"
        )
    named, kind, revision = getattr(args, REFERENCE)
    if args.tuner_type == "full":
        args.ref_model = named or args.model
        args.ref_model_type = kind or args.model_type
        args.ref_model_revision = revision or args.model_revision
    elif named is not None:
        raise ValueError(
            f"--ref_model {named} is for --tuner_type full: with {args.tuner_type} the reference is the "
            "model without its adapter, or with that of --ref_adapters; leave it out"
        )


def _refuse_other_training(pipeline: Any, estimator: credit.Estimator) -> None:
    if not isinstance(pipeline, SwiftRLHF):
        _refuse_other_type(pipeline.args, estimator)


def _refuse_other_type(args: Any, estimator: credit.Estimator) -> None:
    kind = getattr(args, "rlhf_type", None)
    if kind != "grpo":
        found = "no RLHF" if kind is None else f"--rlhf_type {kind}"
        raise ValueError(
            f"train_with names {estimator.name} for `swift rlhf --rlhf_type grpo`, and this run is "
            f"{found}, which has no such advantages; leave it out, or start another process"
        )
