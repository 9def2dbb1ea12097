"""Statistics over the responses of one prompt; rows that are not valid take no part."""

from credit.backends.arrays import group_max, group_sum, namespace
from credit.types import Array


def size(valid: Array, groups: Array, dtype: object) -> Array:
    """Number of valid rows in each row's group [N], as a float so that it divides."""
    xp = namespace(valid)
    return group_sum(xp.astype(valid, dtype), groups)


def centre(rewards: Array, groups: Array, valid: Array) -> Array:
    """r_i - mean of the group [N]; 0 for an invalid row, and exactly 0 where a group's rewards are equal.

    Two passes: the float mean of n equal numbers can miss them by some units in the last place, and
    the mean of those residues, small multiples of one unit, is exact.
    """
    xp = namespace(rewards)
    count = xp.clip(size(valid, groups, rewards.dtype), min=1.0)
    centred = xp.where(valid, rewards, 0.0)
    for _ in range(2):
        centred = xp.where(valid, centred - group_sum(centred, groups) / count, 0.0)
    return centred


def standardise(rewards: Array, groups: Array, valid: Array, *, correction: int, eps: float) -> Array:
    """(r_i - mean) / (std + eps) over the valid rows of the group [N]; 0 where there are fewer than 2."""
    xp = namespace(rewards)
    centred = centre(rewards, groups, valid)
    count = size(valid, groups, rewards.dtype)
    variance = group_sum(centred * centred, groups) / xp.clip(count - correction, min=1.0)
    scale = xp.sqrt(variance) + eps
    return centred / xp.where(scale == 0.0, 1.0, scale)  # eps = 0 and equal rewards: 0 / 1


def leave_one_out(rewards: Array, groups: Array, valid: Array) -> Array:
    """r_i - mean of the group's other valid rows = n / (n - 1) (r_i - mean) [N]; 0 for n < 2."""
    xp = namespace(rewards)
    count = size(valid, groups, rewards.dtype)
    return centre(rewards, groups, valid) * count / xp.clip(count - 1.0, min=1.0)


def varies(rewards: Array, groups: Array, valid: Array) -> Array:
    """Whether the rewards of the row's group differ among its valid rows [N], bool; exact."""
    xp = namespace(rewards)
    lowest = -float("inf")
    top = group_max(xp.where(valid, rewards, lowest), groups)
    bottom = -group_max(xp.where(valid, -rewards, lowest), groups)
    return top > bottom


def fraction(flag: Array, groups: Array, valid: Array, dtype: object) -> Array:
    """Fraction of the groups with a valid row whose rows carry `flag` [N], as a 0-d array."""
    xp = namespace(flag)
    count = size(valid, groups, dtype)
    share = xp.where(valid, 1.0 / xp.clip(count, min=1.0), 0.0)
    return xp.sum(xp.where(flag, share, 0.0)) / xp.clip(xp.sum(share), min=1.0)
