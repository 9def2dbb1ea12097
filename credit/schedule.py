"""Settings that change over training, and the types of numeric settings that may."""

from collections.abc import Callable
from math import pi
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from credit.backends.arrays import namespace
from credit.settings import Settings
from credit.types import Array, Rollouts


class Schedule(Settings):
    """A setting that goes from `start` to `end` while `Rollouts.progress` goes from 0 to 1.

        linear    start + (end - start) p
        cosine    end + (start - end) (1 + cos(pi p)) / 2

    The value is computed from the array `progress`, so a jitted estimator is not compiled anew at every
    step. In JSON or YAML: {"start": 1.0, "end": 0.1, "kind": "cosine"}. A constant is written as a number.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> float(credit.Schedule(start=1.0, end=0.5).at(np.asarray(0.5)))
        0.75
        >>> credit.DGPO(tau=credit.Schedule(start=1.0, end=0.5)).tau.kind
        'linear'
    """

    start: float
    """Value at progress 0."""
    end: float
    """Value at progress 1."""
    kind: Literal["linear", "cosine"] = "linear"
    """How the value goes from start to end."""

    def at(self, progress: Array) -> Array:
        """The value at a progress, a 0-d array that is clipped to [0, 1]."""
        xp = namespace(progress)
        p = xp.clip(progress, min=0.0, max=1.0)
        if self.kind == "linear":
            return self.start + (self.end - self.start) * p
        return self.end + (self.start - self.end) * 0.5 * (1.0 + xp.cos(pi * p))


def _require(holds: Callable[[float], bool], expected: str) -> AfterValidator:
    """A check of a number, and of both ends of a Schedule; `expected` completes the error."""

    def check(value: float | Schedule) -> float | Schedule:
        for end in (value.start, value.end) if isinstance(value, Schedule) else (value,):
            if not holds(end):
                raise ValueError(f"{end} is not {expected}")
        return value

    return AfterValidator(check)


_Infinite = Annotated[float, Field(allow_inf_nan=True)]  # what follows refuses NaN
Positive = Annotated[_Infinite | Schedule, _require(lambda x: x > 0.0, "greater than 0")]
NonNegative = Annotated[float | Schedule, _require(lambda x: x >= 0.0, "greater than or equal to 0")]
Fraction = Annotated[float | Schedule, _require(lambda x: 0.0 <= x <= 1.0, "in [0, 1]")]
Share = Annotated[float | Schedule, _require(lambda x: 0.0 < x < 1.0, "greater than 0 and less than 1")]


def evaluate_setting(value: float | Schedule, rollouts: Rollouts) -> Any:
    """The setting's value now: the number itself, or the schedule's at `rollouts.progress`."""
    return value.at(rollouts.progress) if isinstance(value, Schedule) else value
