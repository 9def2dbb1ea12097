"""Statistics over the tokens of responses, for writing estimators of one's own.

Arrays are [N, T]; `mask` is bool and True on the tokens that the policy chose. Values outside the mask are
not read. Results are of the library, device and dtype of the values.
"""

from typing import Any

from credit.backends.arrays import apply_mask, as_type, namespace
from credit.redistribution import make_reducers, redistribute, redistribute_to_fraction
from credit.types import Array

__all__ = [
    "extreme",
    "following",
    "length",
    "make_reducers",
    "mean",
    "quantile",
    "redistribute",
    "redistribute_to_fraction",
    "returns_to_go",
    "turns",
    "whiten",
]


def length(mask: Array, dtype: object) -> Array:
    """Number of tokens of each response.

        l_i = sum_t mask_{i,t}

    Args:
        mask: [N, T], bool.
        dtype: of the result, a floating type of the mask's library, so that the result can divide.

    Returns:
        l [N, 1].

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> tokens.length(np.array([[True, True], [True, False]]), np.float64).tolist()
        [[2.0], [1.0]]
    """
    return namespace(mask).sum(as_type(mask, dtype), axis=-1, keepdims=True)


def turns(mask: Array) -> Array:
    """The turn of each token, for `Rollouts.turns`: the unbroken runs of the mask, numbered from 0.

    Between two turns stand tokens that are not the policy's, such as the output of a tool.

    Args:
        mask: [N, T], bool, or 0 and 1.

    Returns:
        [N, T], integers of the library's index type; 0 outside the mask.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> tokens.turns(np.array([[1, 1, 0, 1, 0]])).tolist()
        [[0, 0, 0, 1, 0]]
    """
    xp = namespace(mask)
    chosen = xp.astype(mask, xp.bool)
    before = xp.concat([xp.zeros_like(chosen[:, :1]), chosen[:, :-1]], axis=1)
    starts = xp.astype(chosen & ~before, xp.__array_namespace_info__().default_dtypes()["indexing"])
    return xp.where(chosen, xp.cumulative_sum(starts, axis=1) - 1, 0)


def whiten(values: Array, mask: Array, correction: int = 1, *, divide: bool = True) -> Array:
    """The values minus their mean over the whole batch, in standard deviations of the batch.

        (x_{i,t} - mean) / sqrt(var + 1e-8)        (mean and variance over all n tokens of the mask)
        x_{i,t} - mean                             (with divide=False)

    Args:
        values: x [N, T], float.
        mask: [N, T], bool.
        correction: 1 for the sample's variance (a sum over n - 1), 0 for the population's (over n).
        divide: False leaves the differences to the mean as they are.

    Returns:
        [N, T]; 0 outside the mask, and exactly 0 everywhere where all values are equal.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> values, mask = np.array([[1.0, 3.0], [5.0, 9.0]]), np.array([[True, True], [True, False]])
        >>> tokens.whiten(values, mask).round(6).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    xp = namespace(values)
    count = xp.sum(as_type(mask, values.dtype))
    centered = values
    for _ in range(2):  # twice for the reason given in groups.center
        centered = xp.where(mask, centered - mean(centered, mask), 0.0)
    if not divide:
        return centered
    # Dividing by the largest value first keeps the squares of large values within float32.
    unit = xp.clip(xp.max(xp.abs(centered)), min=1.0)
    centered = centered / unit
    variance = xp.sum(centered * centered) / xp.clip(count - correction, min=1.0)
    return centered / xp.sqrt(variance + (1e-4 / unit) ** 2)


def returns_to_go(rewards: Array, mask: Array, gamma: Any) -> Array:
    """The discounted sum of the rewards from each token to the end of its response.

        G_t = r_t + gamma_t G_{t'}        (t' the next token of the mask, G = 0 after the last one)

    Args:
        rewards: r [N, T], float: a reward per token.
        mask: [N, T], bool.
        gamma: the discount: a number in [0, 1], or an array [N, T] with the discount after each token.

    Returns:
        G [N, T]; 0 outside the mask.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> rewards, mask = np.array([[1.0, 9.0, 2.0, 4.0]]), np.array([[True, False, True, True]])
        >>> tokens.returns_to_go(rewards, mask, 0.5).tolist()
        [[3.0, 0.0, 4.0, 4.0]]
    """
    xp = namespace(rewards)
    # Outside the mask a factor of 1 and a term of 0 pass the next token's return on.
    factors = xp.where(mask, xp.zeros_like(rewards) + gamma, 1.0)
    return xp.where(mask, _recur(factors, xp.where(mask, rewards, 0.0)), 0.0)


def following(values: Array, mask: Array) -> Array:
    """The value of the next token of the same response.

        y_t = x_{t'}        (t' the next token of the mask, 0 after the last one)

    Args:
        values: x [N, T], float.
        mask: [N, T], bool.

    Returns:
        y [N, T]; 0 outside the mask.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> values, mask = np.array([[1.0, 9.0, 2.0, 4.0]]), np.array([[True, False, True, True]])
        >>> tokens.following(values, mask).tolist()
        [[2.0, 0.0, 4.0, 0.0]]
    """
    xp = namespace(values)
    inside = xp.where(mask, values, 0.0)
    here_or_next = _recur(xp.where(mask, xp.zeros_like(values), 1.0), inside)
    after = xp.concat([here_or_next[:, 1:], xp.zeros_like(inside[:, :1])], axis=1)
    return xp.where(mask, after, 0.0)


def _recur(a: Array, b: Array) -> Array:
    """y_t = a_t y_{t+1} + b_t along the rows [N, T], with y = 0 after the last."""
    xp = namespace(a)
    # The array API has no recurrence, so y_t = a_t y_{t+1} + b_t is composed with itself log2(T) times.
    shift = 1
    while shift < a.shape[-1]:
        later_b = xp.concat([b[:, shift:], xp.zeros_like(b[:, :shift])], axis=1)
        later_a = xp.concat([a[:, shift:], xp.ones_like(a[:, :shift])], axis=1)
        a, b = a * later_a, b + a * later_b
        shift *= 2
    return b


def quantile(values: Array, mask: Array, q: float) -> Array:
    """The q-quantile of the values over all tokens of the batch, interpolated as numpy does by default.

    Args:
        values: [N, T], float.
        mask: [N, T], bool.
        q: in [0, 1].

    Returns:
        A 0-d array; 0 where the mask has no tokens.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> values, mask = np.array([[1.0, 2.0], [4.0, 9.0]]), np.array([[True, True], [True, False]])
        >>> float(tokens.quantile(values, mask, 0.75))
        3.0
    """
    xp = namespace(values)
    # Entries outside the mask become the maximum, so that they sort to the end and nothing is infinite.
    flat = xp.sort(xp.reshape(xp.where(mask, values, extreme(values, mask, largest=True)), (-1,)))
    place = xp.clip(xp.sum(as_type(mask, values.dtype)) - 1.0, min=0.0) * q
    low, high = (
        xp.take(flat, xp.reshape(xp.astype(end, xp.int32), (1,)), axis=0)[0]
        for end in (xp.floor(place), xp.ceil(place))
    )
    return low + (high - low) * (place - xp.floor(place))


def mean(values: Array, mask: Array) -> Array:
    """Mean of the values over all tokens of the batch.

    Args:
        values: [N, T], or of any other shape, float.
        mask: of the same shape, bool.

    Returns:
        A 0-d array; 0 where the mask has no tokens.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> values, mask = np.array([[1.0, 2.0], [6.0, 9.0]]), np.array([[True, True], [True, False]])
        >>> float(tokens.mean(values, mask))
        3.0
    """
    xp = namespace(values)
    count = xp.sum(as_type(mask, values.dtype))
    return xp.sum(apply_mask(values, mask)) / xp.clip(count, min=1.0)


def extreme(values: Array, mask: Array, *, largest: bool) -> Array:
    """The largest or the smallest value over all tokens of the batch.

    Args:
        values: [N, T], or of any other shape, float.
        mask: of the same shape, bool.
        largest: True for the maximum, False for the minimum.

    Returns:
        A 0-d array; 0 where the mask has no tokens.

    Example:
        >>> import numpy as np
        >>> from credit import tokens
        >>> values, mask = np.array([[1.0, 2.0], [4.0, 9.0]]), np.array([[True, True], [True, False]])
        >>> float(tokens.extreme(values, mask, largest=True))
        4.0
    """
    xp = namespace(values)
    none = -float("inf") if largest else float("inf")
    peak = (xp.max if largest else xp.min)(apply_mask(values, mask, none))
    return xp.where(peak == none, 0.0, peak)
