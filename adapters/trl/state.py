"""What this adapter keeps on a trainer of TRL beside TRL's own attributes."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

import credit
from credit.adapters.trl.extra import Generated
from credit.adapters.trl.kept_forwards import KeptForwards
from credit.adapters.trl.prompt_stream import PromptStream


@dataclass
class CreditState:
    """The attribute `credit` of a trainer with CreditMixin.

    Attributes:
        estimator: the estimator that the trainer's arguments name; None: TRL's own advantages.
        per_response: whether the loss is given advantages [B] where the tokens of a response are equal.
        reference_given: whether the user passed a reference model to the trainer.
        prompts: the further prompts from which resampling draws; None: no resampling.
        sampler: TRL's sampler of the training set, once TRL has made it.
        filter_column: which of the rewards decides about groups; None: the setting names none.
        generated: what the last generation said about the rows of this process.
        rewards: the rewards [N, K] of all processes' last generated batch, one column per function.
        returns_lists: whether a reward function has returned a list for a completion so far.
        weights_step: the optimizer step for which the batch's token weights were computed.
        scored_step: the optimizer step in which log-probs are compared with those of Unsloth's loss.
        awaiting: the inputs of the loss in progress that wait for the ratios of completions.
        kept: forwards of TRL's over the batch that it scores now; None: it scores none, or they cannot serve.
    """

    estimator: credit.Estimator | None
    per_response: bool = False
    reference_given: bool = False
    prompts: PromptStream | None = None
    sampler: Any = None
    filter_column: int | Literal["total"] | None = None
    generated: Generated | None = None
    rewards: torch.Tensor | None = None
    returns_lists: bool = False
    weights_step: int | None = None
    scored_step: int | None = None
    awaiting: dict[str, Any] | None = None
    kept: KeptForwards | None = None
