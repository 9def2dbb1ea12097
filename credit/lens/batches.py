"""Completions of one batch, and the credit that another estimator gives them."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from credit.estimators.base import Estimator
from credit.lens.completion import STATISTICS, Completion
from credit.lens.lines import format_records
from credit.lens.records import parse_records
from credit.types import Rollouts


def split_batches(completions: Iterable[Completion]) -> Iterator[list[Completion]]:
    """The completions that were recorded together: step and estimator stay the same, and row numbers grow."""
    batch: list[Completion] = []
    for completion in completions:
        if batch and not _continues(batch[-1], completion):
            yield batch
            batch = []
        batch.append(completion)
    if batch:
        yield batch


def _continues(last: Completion, completion: Completion) -> bool:
    same = last.step == completion.step and last.estimator == completion.estimator
    return same and completion.row > last.row


def recompute(completions: Iterable[Completion], estimator: Estimator) -> Iterator[Completion]:
    """Yields the completions with the credit that another estimator gives them, batch by batch.

    It is computed from what was recorded, so that estimators can be compared on completions of one run.
    Recorded groups are whole; an estimator that compares groups with each other sees only those recorded.

    Args:
        completions: from `read`.
        estimator: its settings replace those in the records.

    Raises:
        ValueError: the estimator needs what was not recorded; the message names it.

    Example:
        >>> import numpy as np
        >>> from credit import DGPO, GRPO, Rollouts, lens
        >>> ones = np.ones((2, 2), np.float32)
        >>> d = np.array([[0.0, 0.5], [0.0, 0.0]], np.float32)
        >>> rollouts = Rollouts(np.array([1.0, 0.0]), np.array([0, 0]), ones)
        >>> rollouts = rollouts._replace(deviation=d, normalized_entropy=ones)
        >>> lines = lens.format_records(
        ...     tokens=[["4", "2"]] * 2, rollouts=rollouts, result=GRPO()(rollouts), estimator=GRPO()
        ... )
        >>> recorded = list(lens.parse_records(lines))
        >>> [np.round(each.weights, 3).tolist() for each in lens.recompute(recorded, DGPO(tau=1.0))]
        [[0.755, 1.245], [1.0, 1.0]]
    """
    for batch in split_batches(completions):
        rollouts = _make_rollouts(batch)
        lines = format_records(
            tokens=[each.tokens for each in batch],
            rollouts=rollouts,
            result=estimator(rollouts),
            estimator=estimator,
            step=batch[0].step,
        )
        for recorded, made in zip(batch, parse_records(lines), strict=True):
            kept = {"row": recorded.row, "prompt": recorded.prompt, **(recorded.model_extra or {})}
            yield made.model_copy(update=kept)


def _make_rollouts(batch: list[Completion]) -> Rollouts:
    """What the estimator was called with, as far as it was recorded: float32 arrays, padded with 0."""
    rewards = np.array([each.reward for each in batch], np.float32)  # None becomes NaN
    statistics = {name: _pad(batch, name, np.float32) for name in STATISTICS}
    progress = batch[0].progress
    return Rollouts(
        rewards,
        np.array([each.group for each in batch]),
        _pad(batch, "mask", bool),
        **statistics,
        valid=np.array([each.valid for each in batch]),
        turns=_pad(batch, "turns", int),
        progress=None if progress is None else np.float32(progress),
    )


def _pad(batch: list[Completion], name: str, dtype: Any) -> Any:
    """One column of the batch [N, T]; None unless all of its completions have it."""
    rows = [getattr(each, name) for each in batch]
    if any(row is None for row in rows):
        return None
    result = np.zeros((len(rows), max(1, *map(len, rows))), dtype)  # one column also where none has a token
    for padded, row in zip(result, rows, strict=True):
        padded[: len(row)] = row
    return result
