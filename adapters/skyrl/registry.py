"""credit's estimators in SkyRL's registry, for a program that keeps SkyRL's own trainer.

SkyRL hands a registered function the rewards, the mask of the response and the prompts. Its mask of the loss,
without the output of tools, stays behind, and rows that fill up a batch are among the others. An estimator
that tells tokens apart, reads lengths, or compares the whole batch needs the trainer of credit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from skyrl.backends.skyrl_train.utils.ppo_utils import AdvantageEstimatorRegistry

import credit
from credit.adapters import metrics, rules, traits
from credit.adapters.hooks import check_functions
from credit.adapters.skyrl import hooks, settings
from credit.adapters.skyrl.hooks import FRAMEWORK

check_functions(hooks.FRAMEWORK, hooks.REGISTRY)

Tensor = torch.Tensor
WAY_OUT = (
    "start SkyRL with trainer.override_entrypoint=credit.adapters.skyrl, whose trainer has the loss mask, or "
    f"register an estimator of rewards, such as {settings.PREFIX}rloo"
)


def register(estimator: credit.Estimator, name: str | None = None) -> str:
    """Makes an estimator of rewards known to SkyRL, and returns its name there; credit_<name> by default.

    Call it before SkyRL's `validate_cfg`, which looks the name up, and before Ray starts.

    Raises:
        ValueError: SkyRL would call the estimator with less than it needs; or it has that name already.

    Example:
        register(credit.get("rloo"))  # then trainer.algorithm.advantage_estimator=credit_rloo
    """
    refuse_unfed(estimator)
    known_as = name or FRAMEWORK.name_of(estimator)
    add(known_as, partial(compute_advantages, estimator))
    return known_as


def add(name: str, function: Callable[..., Any]) -> None:
    """Registers a function under a name that is free, since SkyRL would keep the first of two."""
    AdvantageEstimatorRegistry.repopulate_registry()  # SkyRL's own, which it otherwise adds later
    if name in AdvantageEstimatorRegistry.list_available():
        if AdvantageEstimatorRegistry.get(name) == function:  # a second run in this process
            return
        raise ValueError(
            f"SkyRL has an estimator {name!r} already; register yours under another name, or, if this is "
            "credit's trainer, register none of that name before"
        )
    AdvantageEstimatorRegistry.register(name, function)


def refuse_unfed(estimator: credit.Estimator) -> None:
    """Raises ValueError unless rewards and prompts are all that decides about the advantages."""
    name = FRAMEWORK.name_of(estimator)
    if estimator.required_fields:
        needed = ", ".join(estimator.required_fields)
        raise ValueError(f"{name} needs {needed}, which SkyRL's registry does not hand over; {WAY_OUT}")
    rules.refuse_several_rewards(FRAMEWORK, estimator, "the sum of the rewards")
    way_out = "set trainer.algorithm.dynamic_sampling.type"
    rules.refuse_filter_by(FRAMEWORK, estimator, "which filters groups by itself", way_out)
    if traits.differs_between_tokens(estimator):
        raise ValueError(
            f"{name} gives the tokens of a response different advantages, and SkyRL's registry does not hand "
            f"over the loss mask, so that the output of tools would get credit; {WAY_OUT}"
        )
    if _reads_more(estimator):
        raise ValueError(
            f"{name} compares all responses of the batch, or reads their lengths, and SkyRL's registry hands "
            "over rows that fill up a batch, and the output of tools, as if they were the policy's; "
            f"{WAY_OUT}"
        )


def _reads_more(estimator: credit.Estimator) -> bool:
    """Whether an advantage depends on lengths, or on other groups, such as one row that fills up a batch."""
    rewards, groups = torch.tensor([0.0, 1.0, 3.0, 5.0]), torch.tensor([0, 0, 0, 1])
    whole, ragged = torch.ones(4, 4, dtype=torch.bool), torch.ones(4, 4, dtype=torch.bool).tril()
    alone = estimator(credit.Rollouts(rewards[:3], groups[:3], whole[:3])).advantages[:, 0]
    among = estimator(credit.Rollouts(rewards, groups, ragged)).advantages[:3, 0]
    return not torch.allclose(alone, among)


def compute_advantages(
    estimator: credit.Estimator,
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Any,
    config: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns [N, T], both the advantage of each response, as SkyRL's own grpo gives them.

    The reward of a response is the sum of its token_level_rewards [N, T]; `index` [N] names its prompt.

    Raises:
        ValueError: an option of SkyRL's that has no effect with the estimator, one response per prompt, or an
            advantage that is NaN.
    """
    names, groups = np.unique(np.asarray(index), return_inverse=True)
    if config is not None:
        settings.refuse_without_effect(estimator, config)
    rules.refuse_single_responses(FRAMEWORK, estimator, int(np.bincount(groups).max(initial=0)))
    rollouts = credit.Rollouts(
        rewards=token_level_rewards.float().sum(dim=-1),
        groups=torch.from_numpy(groups).to(response_mask.device),
        mask=response_mask.bool(),
    )
    result = estimator(rollouts)
    metrics.read_metrics(estimator.name, result)
    return result.advantages, result.advantages.clone()
