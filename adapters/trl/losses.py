"""Which loss a trainer has, and whether it takes advantages of tokens, [B, T], or of rows only, [B]."""

from typing import Any

import torch
import trl
from packaging.version import Version

import credit
from credit.adapters import traits
from credit.adapters.trl import gspo_token, unsloth
from credit.adapters.trl.hooks import TRAINER, UNSLOTH_TRAINER

Tensor = torch.Tensor
MIXIN = "credit.adapters.trl.trainer"
TRL = {TRAINER.partition(":")[0], UNSLOTH_TRAINER.partition(":")[0]}
"""The modules of GRPOTrainer, TRL's own and as Unsloth generates it, whose losses take both."""
DECLARATION = "takes_token_advantages"


def takes_per_response(estimator: credit.Estimator, args: Any, kind: type) -> bool:
    """Whether a trainer of that class is given [B], as by TRL, since the tokens of a response are equal.

    Raises:
        ValueError: they are not, and the trainer's loss is not known to take [B, T].
    """
    refusal = find_refusal(estimator, args, kind)
    if refusal is not None and args.reweight_with_current_policy:
        raise ValueError(refusal)
    if estimator.is_uniform:
        return True
    if refusal is None and not gspo_token.is_asked(args):  # then [B, T] is right even if the tokens are equal
        return False
    differs = traits.differs_between_tokens(estimator)
    if differs and refusal is not None:
        raise ValueError(refusal)
    return not differs


def shape_advantages(trainer: Any, advantages: Tensor, mask: Tensor) -> Tensor:
    """The advantages [N, T] as the trainer's loss is given them: [N] where it `takes_per_response`.

    Raises:
        ValueError: tokens differ, which trying the estimator did not show, and the loss takes no [B, T].
    """
    if not trainer.credit.per_response:
        return advantages
    first = advantages.gather(1, mask.int().argmax(dim=1, keepdim=True))  # 0 in a response without tokens
    equal = torch.isclose(advantages, first, rtol=1e-6, atol=0.0, equal_nan=True)
    if (equal | ~mask.bool()).all():
        return first[:, 0]
    refusal = find_refusal(trainer.credit.estimator, trainer.args, type(trainer))
    if refusal is not None:
        raise ValueError(refusal)
    return advantages


def find_refusal(estimator: credit.Estimator, args: Any, kind: type) -> str | None:
    """Why the loss of a trainer of that class does not take [B, T]; None: it does."""
    gives = f"{estimator.name} gives the tokens of a completion different advantages, [B, T], and"
    own = find_own_loss(kind)
    if own is not None and not _is_declared(kind, own):
        return (
            f"{gives} {own.__name__} has a loss of its own, which may take one per completion only, [B]; use "
            "CreditGRPOTrainer, or an estimator such as grpo, or, if that loss takes [B, T], set "
            f"{DECLARATION} = True in the class {kind.__name__}"
        )
    if args.use_liger_kernel and hasattr(kind, "compute_liger_loss"):  # up to TRL 1.13
        return (
            f"{gives} the loss of use_liger_kernel=True takes one per completion, [B]; leave it out, or use "
            "an estimator such as grpo"
        )
    if args.loss_type == "luspo" and Version(trl.__version__) < Version("1.10"):
        return (
            f"{gives} loss_type='luspo' of TRL {trl.__version__} divides a loss of tokens by the width of "
            "the batch; update TRL, or take another loss_type"
        )
    return gspo_token.find_refusal(own or unsloth.find_trainer(kind)) if gspo_token.is_asked(args) else None


def find_own_loss(kind: type) -> type | None:
    """The class with the first loss that is not GRPOTrainer's; None: the loss is GRPOTrainer's."""
    for each in kind.__mro__:
        found = [vars(each)[name] for name in ("compute_loss", "_compute_loss") if name in vars(each)]
        modules = {getattr(loss, "__module__", None) for loss in found}
        if modules - TRL - {MIXIN}:
            return each
        if modules & TRL:
            break
    return None


def _is_declared(kind: type, own: type) -> bool:
    """Whether the class with the loss, or one that inherits it, says that it takes [B, T]."""
    heirs = kind.__mro__[: kind.__mro__.index(own) + 1]
    return any(vars(each).get(DECLARATION) for each in heirs)
