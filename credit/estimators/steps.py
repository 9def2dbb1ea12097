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
    width = ends.shape[1]
    place = xp.cumulative_sum(xp.ones_like(rollouts.turns), axis=1) - 1
    first = xp.cumulative_sum(xp.ones_like(rollouts.turns), axis=0) - 1
    # The ends move to the front, in order, so that equal steps ahead give equal bits however long they are.
    order = xp.argsort(xp.where(ends, place, place + width), axis=1)
    compact, there = (_pick(each, first * width + order) for each in (values, ends))
    found = tokens.returns_to_go(compact, there, gamma)
    passed = xp.cumulative_sum(xp.astype(ends, place.dtype), axis=1) - xp.astype(ends, place.dtype)
    # After its last end a response has no tokens, so what is read there does not matter.
    back = _pick(found, first * width + xp.where(passed < width, passed, 0))
    return xp.where(is_in_range(rollouts.turns, width), back, float("nan"))


def number_pairs(first: Array, second: Array) -> Array:
    """Numbers in 0..M-1, equal where both integers are equal, for arrays [M] of any integers."""
    xp = namespace(first)
    order = xp.argsort(second, stable=True)
    order = xp.take(order, xp.argsort(xp.take(first, order, axis=0), stable=True), axis=0)
    a, b = xp.take(first, order, axis=0), xp.take(second, order, axis=0)
    starts = xp.astype((a[1:] != a[:-1]) | (b[1:] != b[:-1]), order.dtype)
    numbers = xp.cumulative_sum(xp.concat([xp.zeros_like(order[:1]), starts]), axis=0)
    return xp.take(numbers, xp.argsort(order), axis=0)


def _pick(array: Array, places: Array) -> Array:
    """The entries of the array [N, T] at those places [N, T], counted through all rows."""
    xp = namespace(array)
    return xp.reshape(xp.take(xp.reshape(array, (-1,)), xp.reshape(places, (-1,)), axis=0), places.shape)
