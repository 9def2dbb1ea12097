"""DAPO's penalty for overlong completions, as one more reward function of TRL's trainer."""

from collections.abc import Callable
from typing import Any

import torch

import credit
from credit.adapters.trl import recipes

Tensor = torch.Tensor


def has_penalty(args: Any) -> bool:
    """Whether the trainer's arguments ask for the penalty; its reward function is the last one then."""
    return bool(getattr(args, "overlong_cache_length", None))


def add_penalty(trainer: Any) -> None:
    """Adds the penalty to the trainer's reward functions, with weight 1."""
    args = trainer.args
    function = _make_penalty(recipes.overlong_length(args), args.overlong_cache_length)
    trainer.reward_funcs = [*trainer.reward_funcs, function]  # a new list, since this one may be the user's
    trainer.reward_func_names.append("overlong_penalty")
    trainer.reward_processing_classes.append(None)
    trainer.reward_weights = torch.cat([trainer.reward_weights, torch.ones(1)])


def mask_unscored_penalty(rewards: Tensor) -> Tensor:
    """The rewards [N, K] without the penalty, the last column, where no other function gave a reward."""
    others, penalty = rewards[:, :-1], rewards[:, -1:]
    unscored = others.isnan().all(dim=1, keepdim=True)
    return torch.cat([others, penalty.masked_fill(unscored, float("nan"))], dim=1)


def _make_penalty(max_length: int, cache_length: int) -> Callable[..., list[float]]:
    def overlong_penalty(completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths = torch.tensor([len(ids) for ids in completion_ids])
        penalties: list[float] = credit.overlong_penalty(lengths, max_length, cache_length).tolist()
        return penalties

    return overlong_penalty
