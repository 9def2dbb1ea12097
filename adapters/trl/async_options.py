"""What cannot work with an estimator in TRL's asynchronous trainer, and what differs from its paper."""

from typing import Any

import numpy as np
from trl.experimental.async_grpo.async_rollout_worker import AsyncRolloutWorker

import credit
from credit.adapters import loss_report, rules, traits
from credit.adapters.trl.hooks import FRAMEWORK
from credit.adapters.trl.options import clip_options

INSTEAD = "use an estimator that reads the rewards of one prompt alone, such as grpo, or CreditGRPOTrainer"


def refuse(estimator: credit.Estimator, args: Any, rollout_worker: Any = None) -> None:
    """Raises ValueError for what cannot work with this estimator, before a model is loaded."""
    name = estimator.name
    if estimator.required_fields:
        raise ValueError(
            f"{name} needs {', '.join(estimator.required_fields)}, and TRL's asynchronous trainer turns "
            "rewards into advantages in a process that has no model, and trains on rows without their groups "
            f"and without a reference; {INSTEAD}"
        )
    if traits.differs_between_tokens(estimator):
        raise ValueError(
            f"{name} gives the tokens of a completion different advantages, and TRL's asynchronous trainer "
            f"takes one number per completion; {INSTEAD}"
        )
    rules.refuse_several_rewards(FRAMEWORK, estimator, "their sum in its asynchronous trainer")
    if not reads_one_group(estimator):
        raise ValueError(
            f"{name} compares the completions of several prompts, and TRL's asynchronous trainer computes "
            f"the advantages of one prompt at a time; {INSTEAD}"
        )
    if traits.filters_groups(estimator):
        raise ValueError(
            f"{name} leaves out groups whose rewards are equal, and TRL's asynchronous trainer counts its "
            "epochs by the groups that it trains on; use grpo, which gives the same advantages and keeps "
            "these groups with advantages of 0, or CreditGRPOTrainer"
        )
    rules.refuse_single_responses(FRAMEWORK, estimator, args.num_generations)
    if rollout_worker is not None and not isinstance(rollout_worker, AsyncRolloutWorker):
        raise ValueError(
            f"{name} is computed by TRL's AsyncRolloutWorker, and rollout_worker is a "
            f"{type(rollout_worker).__name__}, which computes its own advantages; leave one of them out"
        )


def reads_one_group(estimator: credit.Estimator) -> bool:
    """Whether the advantages of a group do not depend on other groups, found by trying it on three groups."""
    rewards, groups = np.array([0.0, 1.0, 2.0, 5.0, 3.0, 3.0]), np.array([0, 0, 1, 1, 2, 2])
    mask = np.ones((6, 2), dtype=bool)
    together = estimator(credit.Rollouts(rewards, groups, mask)).advantages
    rows = groups == 1
    alone = estimator(credit.Rollouts(rewards[rows], groups[rows], mask[rows])).advantages
    return np.allclose(together[rows], alone)


def report_differences(estimator: credit.Estimator, args: Any) -> None:
    """Logs one line if TRL's loss, which stays as it is, differs from the paper's."""
    clips = clip_options(estimator.loss, args)
    loss_report.report_loss_differences(FRAMEWORK, estimator, clips, ("the loss", "dapo"))
