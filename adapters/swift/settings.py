"""The estimator that a plugin file of the user's names, and how it is fed."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import credit
from credit.adapters.memory import BUDGET_MB
from credit.adapters.swift import pipeline


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What `train_with` was called with."""

    estimator: credit.Estimator
    record_steps: int | None
    record_completions: int
    record_path: str | None
    statistics_memory_mb: float


_chosen: list[Choice] = []


def train_with(
    estimator: credit.Estimator | str | Mapping[str, Any],
    *,
    record_steps: int | None = None,
    record_completions: int = 16,
    record_path: str | None = None,
    statistics_memory_mb: float = BUDGET_MB,
) -> None:
    """Lets `swift rlhf --rlhf_type grpo` take its advantages from an estimator; call it in a plugin.

    Args:
        estimator: an estimator, the name of one, or a mapping such as {"name": "dgpo", "tau": 0.05}.
        record_steps: writes completions with the credit of each token every so many steps; None: never.
        record_completions: completions per write at most, in whole groups; one group at least.
        record_path: the file for them, JSON lines; None: credit.jsonl in --output_dir.
        statistics_memory_mb: megabytes (10^6 bytes) that tiles of logits may take when tokens are scored.

    Raises:
        ValueError: a wrong name or setting, or an estimator other than the one that was named before.
        RuntimeError: the program is ms-swift's Megatron command, whose trainer this adapter does not extend.

    Example:
        import credit
        from credit.adapters.swift import train_with

        train_with(credit.DGPO(tau=0.05))  # my_credit.py, of --external_plugins my_credit.py
    """
    if "swift.megatron" in sys.modules:
        raise RuntimeError(
            "credit extends the trainer of `swift rlhf`, and this is ms-swift's Megatron command, whose "
            "trainer would go on with ms-swift's own advantages; use `swift rlhf --rlhf_type grpo`"
        )
    for name, value in (("record_steps", record_steps), ("record_completions", record_completions)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    if not statistics_memory_mb > 0:
        raise ValueError(f"statistics_memory_mb is {statistics_memory_mb}; expected a positive number")
    choice = Choice(
        estimator=credit.parse(estimator),
        record_steps=record_steps,
        record_completions=record_completions,
        record_path=record_path,
        statistics_memory_mb=float(statistics_memory_mb),
    )
    if _chosen and _chosen[0] != choice:
        raise ValueError(
            f"train_with was called before, with {_chosen[0].estimator!r} and other settings than now, with "
            f"{choice.estimator!r}; name one estimator, in one of the --external_plugins"
        )
    _chosen[:] = [choice]
    pipeline.install(choice.estimator)


def chosen() -> Choice:
    """What `train_with` was called with in this process.

    Raises:
        RuntimeError: it was not called.
    """
    if not _chosen:
        raise RuntimeError(
            "no estimator is named; call credit.adapters.swift.train_with in a plugin file first"
        )
    return _chosen[0]
