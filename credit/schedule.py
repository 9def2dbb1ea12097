"""Settings that change over training."""

from math import pi
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, FiniteFloat

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

    start: FiniteFloat
    """Value at progress 0."""
    end: FiniteFloat
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


def bounded(*, above: float | None = None, least: float | None = None, below: float | None = None) -> Any:
    """The type of a numeric setting, a number or a Schedule, that stays within the given bounds."""

    def check(value: float | Schedule) -> float | Schedule:
        ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
        for end in ends:
            if above is not None and not end > above:
                raise ValueError(f"{end} is not greater than {above:g}")
            if least is not None and not end >= least:
                raise ValueError(f"{end} is not greater than or equal to {least:g}")
            if below is not None and not end < below:
                raise ValueError(f"{end} is not less than {below:g}")
        return value

    return Annotated[float | Schedule, AfterValidator(check)]


def evaluate_setting(value: float | Schedule, rollouts: Rollouts) -> Any:
    """The setting's value now: the number itself, or the schedule's at `rollouts.progress`."""
    return value.at(rollouts.progress) if isinstance(value, Schedule) else value


Number = float | Schedule
