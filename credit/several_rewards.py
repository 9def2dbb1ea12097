"""Rewards [N, K] of several functions, in which NaN says that a function gave a response no reward."""

from credit.backends.arrays import namespace
from credit.types import Array


def find_missing(rewards: Array) -> Array:
    """Which rewards, of [N] or [N, K], were not given: NaN beside another reward of the same row.

    NaN alone in its row is a reward that is not finite, and its row is not valid.
    """
    xp = namespace(rewards)
    missing = xp.isnan(rewards)
    if rewards.ndim == 1:
        return xp.zeros_like(missing)
    return missing & ~xp.all(missing, axis=1)[:, None]


def find_scored_rows(rewards: Array) -> Array:
    """Which rows [N] of [N] or [N, K] have finite rewards only, but for those that were not given."""
    xp = namespace(rewards)
    good = xp.isfinite(rewards) | find_missing(rewards)
    return good if rewards.ndim == 1 else xp.all(good, axis=1)


def split_functions(rewards: Array, valid: Array) -> list[tuple[Array, Array]]:
    """The rewards [N] of each function, and which valid rows [N] have one of it."""
    if rewards.ndim == 1:
        return [(rewards, valid)]
    given = valid[:, None] & ~find_missing(rewards)
    return [(rewards[:, k], given[:, k]) for k in range(rewards.shape[1])]


def sum_given(rewards: Array) -> Array:
    """The sum [N] of the rewards [N, K] that were given; those of [N] as they are."""
    xp = namespace(rewards)
    if rewards.ndim == 1:
        return rewards
    return xp.sum(xp.where(find_missing(rewards), 0.0, rewards), axis=1)
