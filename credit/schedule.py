"""Settings that change over training."""

from math import pi
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat

from credit.backends.arrays import namespace
from credit.types import Array, Rollouts


class Schedule(BaseModel):
    """A number that goes from `start` to `end` while `Rollouts.progress` goes from 0 to 1.

        linear    start + (end - start) p
        cosine    end + (start - end) (1 + cos(pi p)) / 2

    A pure function of a traced number, so that a jitted estimator is not compiled anew at every
    step. In JSON or YAML: {"start": 1.0, "end": 0.1, "kind": "cosine"}. A constant is a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: FiniteFloat
    end: FiniteFloat
    kind: Literal["linear", "cosine"] = "linear"

    def at(self, progress: Array) -> Array:
        """The value at progress [], clipped to [0, 1]."""
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
