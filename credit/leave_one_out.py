"""The spread of the other responses to a prompt, without the digits that a difference of sums loses."""

from credit.backends.arrays import group_max, group_sum, namespace
from credit.types import Array

LARGEST_SCALED = 1e3
"""In standard deviations of the others. Beyond it they count as equal: what spreads them is rounding."""


def std_of_others(rewards: Array, groups: Array, valid: Array, correction: int) -> Array:
    """Standard deviation [N] of the rewards of each row's group without the row's own.

        sqrt(sum_{j != i} (r_j - m_i)^2 / max(n - 1 - correction, 1))        (m_i the mean of the others)

    It is exactly 0 where the others are equal. Leaving a row out of the group's sums does not give that:
    a single reward of 0 beside seven of 0.95 leaves rounding of the size of its own square. So the highest
    and the lowest reward, if no other row has it, are left out before anything is summed. Without any other
    row, its group keeps both extremes, and a difference of sums loses few digits.
    """
    xp, lowest = namespace(rewards), -float("inf")
    top = group_max(xp.where(valid, rewards, lowest), groups)
    bottom = -group_max(xp.where(valid, -rewards, lowest), groups)
    unit = xp.where(top > bottom, top - bottom, 1.0)
    rewards = xp.where(valid, rewards, 0.0)

    def sum_squares(rows: Array, pivot: Array) -> tuple[Array, Array, Array]:
        """Of those rows, per group: their number, and the sum of squares; and each row from their mean."""
        apart = xp.where(rows, (rewards - pivot) / unit, 0.0)
        count = group_sum(xp.astype(rows, rewards.dtype), groups)
        apart = xp.where(rows, apart - group_sum(apart, groups) / xp.clip(count, min=1.0), 0.0)
        return count, group_sum(apart * apart, groups), apart

    count, squares, apart = sum_squares(valid, bottom)
    own = count / xp.clip(count - 1.0, min=1.0) * apart * apart
    squares = xp.clip(squares - own, min=0.0)
    for extreme, other in ((top, bottom), (bottom, top)):
        at = valid & (rewards == extreme)
        alone = at & (group_sum(xp.astype(at, rewards.dtype), groups) == 1.0)
        # From the other extreme on, the rest are exactly 0 where they are all equal to it.
        squares = xp.where(alone, sum_squares(valid & ~at, other)[1], squares)
    return unit * xp.sqrt(squares / xp.clip(count - 1.0 - correction, min=1.0))


def divide_unless_tiny(apart: Array, std: Array, eps: float) -> Array:
    """apart / (std + eps), or `apart` itself where that would be more than LARGEST_SCALED without eps."""
    xp = namespace(apart)
    return apart / xp.where(std <= xp.abs(apart) / LARGEST_SCALED, 1.0, std + eps)
