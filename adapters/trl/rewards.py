"""What TRL's reward functions say, as an estimator takes it, and the penalty for overlong completions."""

from collections.abc import Callable
from typing import Any

import torch

import credit
from credit.adapters.traits import weighs_rewards
from credit.adapters.trl import recipes

Tensor = torch.Tensor


def set_up_rewards(trainer: Any) -> None:
    """Adds the overlong penalty to the trainer's reward functions, and settles who weighs them how."""
    args, estimator, penalty = trainer.args, trainer.credit_estimator, _has_penalty(trainer)
    if penalty:
        function = _make_overlong_penalty(recipes.overlong_length(args), args.overlong_cache_length)
        trainer.reward_funcs = [*trainer.reward_funcs, function]  # the list may be the user's
        trainer.reward_func_names.append("overlong_penalty")
        trainer.reward_processing_classes.append(None)
        trainer.reward_weights = torch.cat([trainer.reward_weights, torch.ones(1)])
    if estimator is None or not weighs_rewards(estimator):
        return
    if estimator.reward_weights is not None:
        weights = [*estimator.reward_weights, *([1.0] if penalty else [])]
        if len(weights) != len(trainer.reward_funcs):
            given, functions = len(estimator.reward_weights), len(trainer.reward_funcs) - penalty
            raise ValueError(f"{estimator.name} has {given} reward_weights for {functions} reward functions")
        trainer.reward_weights = torch.tensor(weights)
    weights = tuple(trainer.reward_weights.tolist())
    trainer.credit_estimator = estimator.model_copy(update={"reward_weights": weights})


def _has_penalty(trainer: Any) -> bool:
    return bool(getattr(trainer.args, "overlong_cache_length", None))


def _make_overlong_penalty(max_length: int, cache_length: int) -> Callable[..., list[float]]:
    def overlong_penalty(completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths = torch.tensor([len(ids) for ids in completion_ids])
        return credit.overlong_penalty(lengths, max_length, cache_length).tolist()

    return overlong_penalty


def mask_unscored_penalty(trainer: Any, each: Tensor) -> Tensor:
    """The rewards [N, K], without a penalty for a completion that no other function scored."""
    if not _has_penalty(trainer):
        return each
    unscored = each[:, :-1].isnan().all(dim=1)
    return torch.cat([each[:, :-1], each[:, -1:].masked_fill(unscored[:, None], float("nan"))], dim=1)


def combine_rewards(trainer: Any, size: int, *, penalty: bool = True) -> Tensor:
    """The rewards of the trainer's batch: [N, K] where the estimator takes several, else their sum [N].

    The sum is weighted; NaN where a row has none. A function that returns None for a whole group (`size`
    rows) does not apply to its prompt, and gives it 0. Without `penalty`, that of length is left out.
    """
    each, weights = trainer.credit_rewards, trainer.reward_weights
    if not penalty and _has_penalty(trainer):
        each, weights = each[:, :-1], weights[:-1]
    unscored = each.isnan().all(dim=1)
    if weighs_rewards(trainer.credit_estimator):
        absent = each.isnan().view(-1, size, each.shape[1]).all(dim=1).repeat_interleave(size, dim=0)
        return each.masked_fill(absent & ~unscored[:, None], 0.0)
    return (each * weights.to(each.device)).nansum(dim=1).masked_fill(unscored, float("nan"))
