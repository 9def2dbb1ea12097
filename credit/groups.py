"""Statistics over the responses to one prompt, for writing estimators of one's own.

Rows with equal ids in `groups` form a group; ids are integers in 0..N-1. Rows that are not `valid` are left
out of every sum, mean and extreme. Results are arrays [N] of the library, device and dtype of the rewards.
"""

from credit.backends.arrays import group_max, group_sum, namespace
from credit.leave_one_out import divide_unless_tiny, std_of_others
from credit.types import Array

__all__ = ["center", "divide_or_keep", "fraction", "leave_one_out", "size", "standardize", "std", "varies"]


def size(valid: Array, groups: Array, dtype: object) -> Array:
    """Number of valid rows in the group of each row.

        n_i = sum_j 1[g_j = g_i] valid_j

    Args:
        valid: [N], bool.
        groups: g [N], integers in 0..N-1.
        dtype: of the result, a floating type of the arrays' library, so that the result can divide.

    Returns:
        n [N].

    Example:
        >>> import numpy as np
        >>> from credit import groups
        >>> groups.size(np.array([True, True, False]), np.array([0, 1, 1]), np.float64).tolist()
        [1.0, 1.0, 1.0]
    """
    xp = namespace(valid)
    return group_sum(xp.astype(valid, dtype), groups)


def center(rewards: Array, groups: Array, valid: Array, weights: Array | None = None) -> Array:
    """Each reward minus the mean of its group.

        c_i = r_i - sum_j v_j r_j / sum_j v_j        (j over the valid rows of the group, v = weights or 1)

    Args:
        rewards: r [N], float.
        groups: [N], integers in 0..N-1.
        valid: [N], bool.
        weights: v [N], float, at least 0. Default: all equal.

    Returns:
        c [N]; 0 for rows that are not valid, and exactly 0 in a group whose rewards are all equal, unless
        weights that are no integers leave a rounding.

    Example:
        >>> import numpy as np
        >>> from credit import groups
        >>> rewards, ids, valid = np.array([1.0, 0.0, 5.0]), np.array([0, 0, 1]), np.array([True] * 3)
        >>> groups.center(rewards, ids, valid).tolist()
        [0.5, -0.5, 0.0]
    """
    xp = namespace(rewards)
    weights = xp.astype(valid, rewards.dtype) if weights is None else xp.where(valid, weights, 0.0)
    total = group_sum(weights, groups)
    total = xp.where(total == 0.0, 1.0, total)
    centered = xp.where(valid, rewards, 0.0)
    # The float mean of n equal numbers can be wrong in its last digits. The residues that it leaves are
    # small multiples of one unit in the last place, so their own mean is exact and a second pass removes it.
    for _ in range(2):
        centered = xp.where(valid, centered - group_sum(weights * centered, groups) / total, 0.0)
    return centered


def std(rewards: Array, groups: Array, valid: Array, *, correction: int) -> Array:
    """Standard deviation of the rewards of each row's group.

        std_i = sqrt(sum_j (r_j - mean)^2 / max(n - correction, 1))        (j over the n valid rows)

    Args:
        rewards: r [N], float.
        groups: [N], integers in 0..N-1.
        valid: [N], bool.
        correction: 1 for the sample's standard deviation, 0 for the population's.

    Returns:
        std [N]; 0 in a group with fewer than two valid rows.

    Example:
        >>> import numpy as np
        >>> from credit import groups
        >>> rewards, ids, valid = np.array([1.0, 0.0, 5.0]), np.array([0, 0, 1]), np.array([True] * 3)
        >>> groups.std(rewards, ids, valid, correction=0).tolist()
        [0.5, 0.5, 0.0]
    """
    return _std_of_centered(center(rewards, groups, valid), groups, valid, correction)


def standardize(
    rewards: Array, groups: Array, valid: Array, *, correction: int, eps: float, leave_one_out: bool = False
) -> Array:
    """Each reward minus the mean of its group, in standard deviations of the group: GRPO's advantage.

        A_i = (r_i - mean) / (std + eps)        (mean and std over the valid rows of the group)
        A_i = (r_i - mean_i) / (std_i + eps)    (over its valid rows but i, with leave_one_out)
        A_i = r_i - mean_i                      (there, where std_i <= |r_i - mean_i| / 1000)

    Args:
        rewards: r [N], float.
        groups: [N], integers in 0..N-1.
        valid: [N], bool.
        correction: 1 for the sample's standard deviation, 0 for the population's.
        eps: in the unit of the rewards, at least 0; keeps small deviations from being scaled up.
        leave_one_out: compare a row with the other rows of its group.

    Returns:
        A [N]; 0 for rows that are not valid, and in a group with fewer than two valid rows.

    Source: GRPO, arXiv 2402.03300; leave_one_out is NeMo-RL's default.

    Example:
        >>> import numpy as np
        >>> from credit import groups
        >>> rewards, ids, valid = np.array([1.0, 0.0, 5.0]), np.array([0, 0, 1]), np.array([True] * 3)
        >>> groups.standardize(rewards, ids, valid, correction=0, eps=0.0).tolist()
        [1.0, -1.0, 0.0]
    """
    if leave_one_out:
        apart = _less_the_others(rewards, groups, valid)
        return divide_unless_tiny(apart, std_of_others(rewards, groups, valid, correction), eps)
    centered = center(rewards, groups, valid)
    return divide_or_keep(centered, _std_of_centered(centered, groups, valid, correction) + eps)


def _std_of_centered(centered: Array, groups: Array, valid: Array, correction: int) -> Array:
    """Standard deviation of rewards whose mean was subtracted already."""
    xp = namespace(centered)
    count = size(valid, groups, centered.dtype)
    # Dividing by the group's largest value first keeps the squares of rewards near 1e20 within float32.
    largest = group_max(xp.abs(centered), groups)
    unit = xp.where(largest > 0.0, largest, 1.0)
    squares = group_sum((centered / unit) ** 2, groups)
    return unit * xp.sqrt(squares / xp.clip(count - correction, min=1.0))


def divide_or_keep(centered: Array, scale: Array) -> Array:
    """centered / scale, or centered itself where the scale is 0, since a zero scale implies zero input.

    Args:
        centered: [N], float.
        scale: [N], float, at least 0.

    Example:
        >>> import numpy as np
        >>> from credit import groups
        >>> groups.divide_or_keep(np.array([1.0, 0.0]), np.array([2.0, 0.0])).tolist()
        [0.5, 0.0]
    """
    return centered / namespace(scale).where(scale == 0.0, 1.0, scale)


def leave_one_out(rewards: Array, groups: Array, valid: Array) -> Array:
    """Each reward minus the mean of the other rewards of its group: RLOO's advantage.

        A_i = r_i - 1 / (n - 1) sum_{j != i} r_j = n / (n - 1) (r_i - mean)        (over the n valid rows)

    Args:
        rewards: r [N], float.
        groups: [N], integers in 0..N-1.
        valid: [N], bool.

    Returns:
        A [N]; 0 for rows that are not valid, and in a group with fewer than two valid rows.

    Source: RLOO, arXiv 2402.14740.

    Example:
        >>> import numpy as np
        >>> from credit import groups
        >>> rewards, ids, valid = np.array([1.0, 0.0, 0.5]), np.array([0, 0, 0]), np.array([True] * 3)
        >>> groups.leave_one_out(rewards, ids, valid).tolist()
        [0.75, -0.75, 0.0]
    """
    return _less_the_others(rewards, groups, valid)


def _less_the_others(rewards: Array, groups: Array, valid: Array) -> Array:
    """`leave_one_out`, whose name is an argument elsewhere."""
    count = size(valid, groups, rewards.dtype)
    return center(rewards, groups, valid) * count / namespace(count).clip(count - 1.0, min=1.0)


def varies(rewards: Array, groups: Array, valid: Array) -> Array:
    """Whether the rewards in the group of each row differ.

        varies_i = max_j r_j > min_j r_j        (j over the valid rows of the group)

    Args:
        rewards: r [N], float.
        groups: [N], integers in 0..N-1.
        valid: [N], bool.

    Returns:
        [N], bool. It compares rewards as they are, so the smallest difference counts.

    Example:
        >>> import numpy as np
        >>> from credit import groups
        >>> rewards, ids, valid = np.array([1.0, 0.0, 5.0]), np.array([0, 0, 1]), np.array([True] * 3)
        >>> groups.varies(rewards, ids, valid).tolist()
        [True, True, False]
    """
    xp = namespace(rewards)
    lowest = -float("inf")
    top = group_max(xp.where(valid, rewards, lowest), groups)
    bottom = -group_max(xp.where(valid, -rewards, lowest), groups)
    return top > bottom


def fraction(flag: Array, groups: Array, valid: Array, dtype: object) -> Array:
    """Fraction of the groups that are flagged, among those with a valid row.

        f = sum_i flag_i / n_i / number of groups        (i over the valid rows, n_i the size of i's group)

    Args:
        flag: [N], bool, the same for all rows of a group.
        groups: [N], integers in 0..N-1.
        valid: [N], bool.
        dtype: of the result, a floating type of the arrays' library.

    Returns:
        f, a 0-d array in [0, 1]; 0 where no row is valid.

    Example:
        >>> import numpy as np
        >>> from credit import groups
        >>> flag, ids, valid = np.array([True, True, False]), np.array([0, 0, 1]), np.array([True] * 3)
        >>> float(groups.fraction(flag, ids, valid, np.float64))
        0.5
    """
    xp = namespace(flag)
    count = size(valid, groups, dtype)
    share = xp.where(valid, 1.0 / xp.clip(count, min=1.0), 0.0)
    return xp.sum(xp.where(flag, share, 0.0)) / xp.clip(xp.sum(share), min=1.0)
