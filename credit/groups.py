"""Statistics over the responses of one prompt; rows that are not valid take no part."""

from credit.backends.arrays import group_max, group_sum, namespace
from credit.types import Array


def size(valid: Array, groups: Array, dtype: object) -> Array:
    """Number of valid rows in each row's group [N], as a float so that it divides."""
    xp = namespace(valid)
    return group_sum(xp.astype(valid, dtype), groups)


def center(rewards: Array, groups: Array, valid: Array, weights: Array | None = None) -> Array:
    """r_i - (weighted) mean of the group [N]; 0 for invalid rows, exactly 0 where rewards are equal.

    Two passes: the float mean of n equal numbers can miss them by some units in the last place, and
    the mean of those residues, small multiples of one unit, is exact.
    """
    xp = namespace(rewards)
    weights = xp.astype(valid, rewards.dtype) if weights is None else xp.where(valid, weights, 0.0)
    total = group_sum(weights, groups)
    total = xp.where(total == 0.0, 1.0, total)
    centred = xp.where(valid, rewards, 0.0)
    for _ in range(2):
        centred = xp.where(valid, centred - group_sum(weights * centred, groups) / total, 0.0)
    return centred


def std(rewards: Array, groups: Array, valid: Array, *, correction: int) -> Array:
    """Standard deviation over the valid rows of the group [N]; 0 where there are fewer than 2."""
    return _std_of_centered(center(rewards, groups, valid), groups, valid, correction)


def standardize(rewards: Array, groups: Array, valid: Array, *, correction: int, eps: float) -> Array:
    """(r_i - mean) / (std + eps) over the valid rows of the group [N]; 0 where there are fewer than 2."""
    centred = center(rewards, groups, valid)
    return divide_or_keep(centred, _std_of_centered(centred, groups, valid, correction) + eps)


def _std_of_centered(centred: Array, groups: Array, valid: Array, correction: int) -> Array:
    """The deviation of rewards whose mean is taken out already."""
    xp = namespace(centred)
    count = size(valid, groups, centred.dtype)
    # In units of the group's largest: the squares of rewards near 1e20 do not fit into float32.
    largest = group_max(xp.abs(centred), groups)
    unit = xp.where(largest > 0.0, largest, 1.0)
    squares = group_sum((centred / unit) ** 2, groups)
    return unit * xp.sqrt(squares / xp.clip(count - correction, min=1.0))


def divide_or_keep(centred: Array, scale: Array) -> Array:
    """centred / scale; centred where the scale is 0, for then there is nothing but zeros to scale."""
    return centred / namespace(scale).where(scale == 0.0, 1.0, scale)


def leave_one_out(rewards: Array, groups: Array, valid: Array) -> Array:
    """r_i - mean of the group's other valid rows = n / (n - 1) (r_i - mean) [N]; 0 for n < 2."""
    xp = namespace(rewards)
    count = size(valid, groups, rewards.dtype)
    return center(rewards, groups, valid) * count / xp.clip(count - 1.0, min=1.0)


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
