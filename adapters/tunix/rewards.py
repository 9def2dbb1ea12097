"""The rewards of each reward function, of which Tunix passes on the sum."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import numpy as np

from credit.adapters.traits import weighs_rewards
from credit.estimators.base import Estimator


@dataclass
class Received:
    """What came by during one batch: a number per response, NaN where a function gave none."""

    functions: dict[int, np.ndarray] = field(default_factory=dict)
    """The rewards [B] of each function, by its place."""
    totals: np.ndarray | None = None
    """[B], as Tunix's reward manager combines them."""

    def stack_columns(self, further: Sequence[Any] = ()) -> np.ndarray:
        """The rewards [B, K] of the functions in their order, and of further sources behind them."""
        columns = [*(self.functions[place] for place in sorted(self.functions)), *further]
        if not columns:  # of a reward manager that calls no functions
            columns = [self.totals]
        return np.stack([np.asarray(each, np.float64) for each in columns], axis=1)


_RECEIVED: ContextVar[Received | None] = ContextVar("credit_rewards", default=None)


@contextmanager
def receive_rewards() -> Iterator[Received]:
    """Yields what the wrapped functions, and Tunix, give within the context."""
    received = Received()
    token = _RECEIVED.set(received)
    try:
        yield received
    finally:
        _RECEIVED.reset(token)


def current_receiver() -> Received | None:
    """What the batch at hand is received by; None outside a learner of credit."""
    return _RECEIVED.get()


def list_functions(reward_fns: Any) -> list[Any]:
    """Tunix's reward_fns, which may be one function or None, as a list."""
    if reward_fns is None:
        return []
    return list(reward_fns) if isinstance(reward_fns, Sequence) else [reward_fns]


def wrap_functions(reward_fns: Any) -> Any:
    """The reward functions, whose rewards are received too; None among them becomes NaN."""
    return [_wrap(place, each) for place, each in enumerate(list_functions(reward_fns))] or None


def _wrap(place: int, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        values = function(*arguments, **named)
        if values is None:  # Tunix says so with the function's name
            return None
        rewards = [float("nan") if each is None else float(each) for each in values]
        received = current_receiver()
        if received is not None:
            received.functions[place] = np.array(rewards)
        return rewards

    return call


def combine_rewards(
    estimator: Estimator, totals: np.ndarray, columns: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """The rewards as the estimator takes them, [B, K] or [B]; NaN for rows that take no part.

    Args:
        totals: [B], as Tunix combines the rewards; it takes NaN for 0.
        columns: [B, K].
        chosen: [B], bool: whether the policy chose any token.
    """
    absent = np.isnan(columns).all(axis=1) | ~chosen
    if weighs_rewards(estimator):
        return np.where(absent[:, None], np.nan, columns)
    return np.where(absent, np.nan, np.asarray(totals, np.float64))
