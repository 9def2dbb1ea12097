"""A user's own estimator in a file, which also saves the batches that the trainer's process computed."""

import os
from pathlib import Path
from typing import Literal

import openrlhf.trainer.ppo_utils.experience_maker  # noqa: F401  (before credit's, which replaces its class)
import torch

import credit
from credit.adapters.openrlhf import trainer


class Turns(credit.MTGRPO):
    """MT-GRPO by another name."""

    name: Literal["turns_witness"] = "turns_witness"


def recorded(compute):
    """compute_advantages_and_returns that saves the experiences."""

    def record(self, experiences):
        result = compute(self, experiences)
        self.credit_count = getattr(self, "credit_count", 0) + 1
        names = ("sequences", "action_mask", "rewards", "index", "advantages", "info")
        saved = [{name: getattr(experience, name) for name in names} for experience in result]
        torch.save(saved, Path(os.environ["WITNESS"]) / f"batch_{self.credit_count}.pt")
        return result

    return record


trainer.CreditExperienceMaker.compute_advantages_and_returns = recorded(
    trainer.CreditExperienceMaker.compute_advantages_and_returns
)
