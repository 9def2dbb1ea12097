"""The estimator that a plugin file of the user's names, and how it is fed."""

import sys
from collections.abc import Mapping
from typing import Any

import credit
from credit.adapters.estimator_report import write_changed
from credit.adapters.record_settings import check_record_settings
from credit.adapters.swift import pipeline
from credit.adapters.swift.choice import Choice, choose, find_choice


def train_with(
    estimator: credit.Estimator | str | Mapping[str, Any],
    *,
    record_steps: int | None = None,
    record_completions: int = 16,
    record_path: str | None = None,
    statistics_memory_mb: float | None = None,
) -> None:
    """Lets `swift rlhf --rlhf_type grpo` take its advantages from an estimator; call it in a plugin.

    Args:
        estimator: an estimator, the name of one, or a mapping such as {"name": "dgpo", "tau": 0.05}.
        record_steps: writes completions with the credit of each token every so many steps; None: never.
        record_completions: completions per write at most, in whole groups; one group at least.
        record_path: the file for them, JSON lines; None: credit.jsonl in --output_dir.
        statistics_memory_mb: megabytes (10^6 bytes) that tiles of logits may take when tokens are scored;
            None: a quarter of what is free on a GPU, 256 elsewhere.

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
    check_record_settings(
        {"record_steps": record_steps, "record_completions": record_completions, "record_path": record_path}
    )
    if statistics_memory_mb is not None and not statistics_memory_mb > 0:
        raise ValueError(f"statistics_memory_mb is {statistics_memory_mb}; expected a positive number")
    choice = Choice(
        estimator=credit.parse(estimator),
        record_steps=record_steps,
        record_completions=record_completions,
        record_path=record_path,
        statistics_memory_mb=None if statistics_memory_mb is None else float(statistics_memory_mb),
    )
    before = find_choice()
    if before is not None and before != choice:
        raise ValueError(
            f"train_with was called before with {write_changed(before.estimator)}, and now with "
            f"{write_changed(choice.estimator)}, or with other settings of its own; call it once, or start "
            "another process"
        )
    choose(choice)
    pipeline.install()
