"""Rewards that depend on the length of a response."""

from credit import validation
from credit.types import Array


def overlong_penalty(lengths: Array, max_length: int, cache_length: int) -> Array:
    """DAPO's soft penalty for responses near the length limit, which is added to the reward.

        0                            L <= L_max - L_c
        ((L_max - L_c) - L) / L_c    L_max - L_c < L <= L_max
        -1                           L > L_max

    Args:
        lengths: L [N], integers or floats, tokens per response.
        max_length: L_max, tokens (20480 in the paper).
        cache_length: L_c, tokens, in 1..L_max (4096 in the paper).

    Returns:
        [N], float32 (float64 for float64 lengths), in [-1, 0].

    Raises:
        ValueError: lengths is no array, or cache_length is not in 1..max_length.

    Source: DAPO, arXiv 2503.14476.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> lengths = np.array([16384, 18432, 20481])
        >>> credit.overlong_penalty(lengths, max_length=20480, cache_length=4096).tolist()
        [0.0, -0.5, -1.0]
    """
    xp = validation.check_same_library(lengths=lengths)
    if not 1 <= cache_length <= max_length:
        raise ValueError(f"cache_length is {cache_length}; expected 1..max_length, that is 1..{max_length}")
    dtype = xp.float64 if lengths.dtype == xp.float64 else xp.float32
    over = (max_length - cache_length) - xp.astype(lengths, dtype)
    return xp.clip(over / cache_length, min=-1.0, max=0.0)
