"""Lists that a reward function returns for a completion, in place of a number: rewards of tokens or turns."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from trl.trainer import grpo_trainer

from credit import tokens

is_async: Callable[[Any], bool] = getattr(grpo_trainer, "is_async_callable", inspect.iscoroutinefunction)


@contextmanager
def sum_lists(trainer: Any) -> Iterator[None]:
    """Within it TRL gets the sum of each list, and `trainer.credit.generated` keeps the lists.

    Without an estimator the reward functions stay as they are.
    """
    functions = trainer.reward_funcs
    if trainer.credit.estimator is not None:
        trainer.reward_funcs = [_wrap_function(trainer, *each) for each in enumerate(functions)]
    try:
        yield
    finally:
        trainer.reward_funcs = functions


def place_values(values: np.ndarray, own: np.ndarray) -> np.ndarray | None:
    """The values on tokens that the policy chose, `own` [T]; None if they are neither of tokens nor of turns.

    The value of another token counts on the policy's last token before it, or on its first one; that of a
    turn on the turn's last token. The last turn may have none if nothing answered it.
    """
    ends = np.flatnonzero(own & ~np.append(own[1:], False))
    unanswered = int(own[-1:].sum())
    placed, chosen = np.zeros(len(own)), np.flatnonzero(own)
    if len(values) == len(own):
        places = chosen[np.maximum(np.cumsum(own) - 1, 0)] if len(chosen) else chosen
    elif len(ends) - unanswered <= len(values) <= len(ends):
        places = ends[: len(values)]
    else:
        return None
    if len(places):
        np.add.at(placed, places, values)
    return placed


def _wrap_function(trainer: Any, column: int, function: Any) -> Any:
    """The reward function, but with sums; it is asynchronous to TRL if the function is."""
    if isinstance(function, torch.nn.Module):
        return function

    def call(**named: Any) -> list[Any]:
        return _sum_rows(trainer, column, list(function(**named)))

    async def call_async(**named: Any) -> list[Any]:
        return _sum_rows(trainer, column, list(await function(**named)))

    return call_async if is_async(function) else call


def _sum_rows(trainer: Any, column: int, rewards: list[Any]) -> list[Any]:
    generated, name = trainer.credit.generated, trainer.reward_func_names[column]
    lists = [row for row, reward in enumerate(rewards) if _is_list(reward)]
    if not lists or len(rewards) != len(generated.own):  # of another length, they are for TRL to refuse
        return rewards
    for row in lists:
        own, values = generated.own[row], _read_values(name, row, rewards[row])
        placed = place_values(values, own)
        if placed is None:
            raise _length_error(name, row, len(values), own)
        if own.any():  # otherwise there is no token to reward, and the sum is a number like any other
            generated.listed.setdefault(column, {})[row] = placed
        rewards[row] = float(values.sum())
    return rewards


def _is_list(reward: Any) -> bool:
    return isinstance(reward, (list, tuple)) or getattr(reward, "ndim", 0) > 0


def _read_values(name: str, row: int, reward: Any) -> np.ndarray:
    given = reward.detach().cpu().double() if hasattr(reward, "detach") else reward
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):  # other things than numbers, or lists of several lengths
        values = np.full(1, np.nan)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            f"the reward function {name} returned {reward!r:.120} for completion {row}; expected a list of "
            "finite numbers, 0 where nothing is earned, or None for a completion that it does not score"
        )
    return values


def _length_error(name: str, row: int, count: int, own: np.ndarray) -> ValueError:
    turns = int(tokens.turns(own[None]).max()) + 1 if own.any() else 0
    return ValueError(
        f"the reward function {name} returned {count} numbers for completion {row}, which has {len(own)} "
        f"tokens and {turns} turns (runs of the policy's own tokens); expected one for each token or one for "
        "each turn, or a single number that is in no list"
    )
