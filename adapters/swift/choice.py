"""What `train_with` was called with, for the parts of this process that ms-swift builds later."""

from dataclasses import dataclass

import credit


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What `train_with` was called with."""

    estimator: credit.Estimator
    record_steps: int | None
    record_completions: int
    record_path: str | None
    statistics_memory_mb: float | None


_chosen: list[Choice] = []  # at most one


def find_choice() -> Choice | None:
    """The choice of this process; None: `train_with` was not called."""
    return _chosen[0] if _chosen else None


def choose(choice: Choice) -> None:
    """Makes it the choice of this process."""
    _chosen[:] = [choice]
