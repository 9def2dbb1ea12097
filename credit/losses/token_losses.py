"""What an objective returns."""

from collections.abc import Mapping
from typing import NamedTuple

from credit.types import Array


class TokenLosses(NamedTuple):
    """The loss of every token, and what the metrics report about it."""

    losses: Array
    """l [N, T], differentiable in log_probs."""
    ratio: Array
    """rho [N, T], the importance ratio that the objective uses."""
    shares: Mapping[str, Array]
    """By the name of a metric, the tokens [N, T], bool, whose share it is."""
