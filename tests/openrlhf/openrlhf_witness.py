"""A user's own estimator, as --credit.plugin brings it, that also writes down what the workers saw.

Ray's workers import this file with the estimator. The trainer's process then saves every batch of
experiences, and each policy worker the weights that scored it, into the folder WITNESS.
"""

import os
from pathlib import Path
from typing import Literal

import deepspeed
import given_rows
import openrlhf.trainer.ppo_utils.experience_maker  # noqa: F401  (before credit's, which replaces its class)
import tiny_model
import torch

import credit
from credit.adapters.openrlhf import statistics, trainer

SAVED = ("sequences", "attention_mask", "action_mask", "rewards", "scores", "index", "advantages", "info")
SAVED += ("rollout_log_probs",)  # None unless --algo.advantage.is_correction_level asks for them


LOW = torch.tensor(tiny_model.character_tokenizer().convert_tokens_to_ids(list("01234")))


class Witness(credit.DGPO):
    """DGPO that also says how its weights average, and whether the arrays in extra are those of their rows."""

    name: Literal["witness"] = "witness"

    @property
    def needs(self):
        return (*given_rows.NEEDS, "extra.own", "extra.low", "extra.token_ids")

    def __call__(self, rollouts):
        result = super().__call__(rollouts)
        result.metrics.update(given_rows.try_estimators(rollouts))
        mask, ids = rollouts.mask.bool(), rollouts.extra["token_ids"]
        error = rollouts.extra["own"] - torch.arange(mask.shape[1]) - torch.isin(ids, LOW).float()
        result.metrics["error_of_tokens"] = error[mask].abs().max()
        result.metrics["low_mean"] = rollouts.extra["low"].mean()
        result.metrics["weights_mean"] = credit.tokens.mean(result.weights, rollouts.mask != 0)
        return result


def recorded(compute):
    """compute_advantages_and_returns that saves the experiences, their statistics and the progress."""

    def record(self, experiences):
        found = [dict(experience.credit) for experience in experiences]
        result = compute(self, experiences)
        self.credit_count = getattr(self, "credit_count", 0) + 1
        fields = [{name: getattr(experience, name) for name in SAVED} for experience in result]
        saved = {"experiences": fields, "statistics": found, "progress": self.credit_progress}
        torch.save(saved, folder() / f"batch_{self.credit_count}.pt")
        return result

    return record


def witnessed(score):
    """statistics.score that saves the policy's weights before it scores with new ones."""

    def save(policy, *batch, **named):
        engine = policy.model
        path = folder() / f"policy_{engine.global_steps}.pt"
        if getattr(engine, "credit_saved", None) != engine.global_steps:
            engine.credit_saved = engine.global_steps
            with deepspeed.zero.GatheredParameters(
                list(engine.module.parameters()), enabled=engine.zero_optimization_stage() == 3
            ):
                weights = {name: p.detach().clone() for name, p in engine.module.named_parameters()}
            if torch.distributed.get_rank() == 0:
                torch.save(weights, path)
        return score(policy, *batch, **named)

    return save


def folder():
    return Path(os.environ["WITNESS"])


trainer.CreditExperienceMaker.compute_advantages_and_returns = recorded(
    trainer.CreditExperienceMaker.compute_advantages_and_returns
)
statistics.score_tokens = witnessed(statistics.score_tokens)
