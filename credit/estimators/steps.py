"""Turns as the steps of a response, each with a reward of its own; part of the multi-turn estimators.

The last token of a step stands for it, so that what holds per step is an array [N, T] like any other.
"""

from credit import tokens
from credit.backends.arrays import is_in_range, namespace
from credit.types import Array, Rollouts


def mark_ends(rollouts: Rollouts) -> Array:
    """Which tokens are the last of their turn, bool [N, T]; none is in a turn outside 0..T-1."""
    mask, rewards = rollouts.mask, rollouts.rewards
    xp = namespace(mask)
    _, _, largest = tokens.make_reducers(mask, rollouts.turns)
    place = xp.cumulative_sum(xp.ones_like(mask, dtype=rewards.dtype), axis=-1)
    return mask & (place == largest(place))


def sum_turns(rewards: Array, rollouts: Rollouts) -> Array:
    """The sum of the rewards [N, T] over the token's turn, [N, T]; NaN in a turn outside 0..T-1."""
    _, total, _ = tokens.make_reducers(rollouts.mask, rollouts.turns)
    return total(rewards)


def add_later_turns(values: Array, ends: Array, rollouts: Rollouts, gamma: float) -> Array:
    """The value of the token's turn plus gamma times that of the next, and so on, [N, T].

    `values` [N, T] are read at `ends` alone. NaN in a turn outside 0..T-1.
    """
    xp = namespace(values)
    once = xp.where(ends, values, 0.0)
    found = tokens.returns_to_go(once, rollouts.mask, xp.where(ends, gamma, xp.ones_like(once)))
    return xp.where(is_in_range(rollouts.turns, rollouts.mask.shape[1]), found, float("nan"))
