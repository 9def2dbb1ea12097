"""Arrays of the user's own in Tunix: columns of the data, and what reward functions log beside rewards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

import credit
from credit.adapters import extra
from credit.adapters.tunix.hooks import FRAMEWORK

_LOGGED: ContextVar[dict[str, list[Any]] | None] = ContextVar("credit_logged", default=None)


def log_extra(name: str, rows: Sequence[Any]) -> None:
    """Gives an estimator the array `extra.<name>` from within a reward function of a learner of credit.

    Args:
        name: as the estimator has it in `needs`, without "extra."
        rows: one for each completion that the function was called with, in their order: a number, a list of
            one number per token of the completion (padding, even sampled, is none), or a list of as many
            numbers for every completion.

    Raises:
        ValueError: no learner of credit called the function.
    """
    logged = _LOGGED.get()
    if logged is None:
        raise ValueError(
            f"log_extra({name!r}, ...) was called outside a reward function of a learner of credit, so that "
            "no estimator would see it; call it in the thread in which Tunix calls the function"
        )
    logged.setdefault(name, []).extend(rows)


@contextmanager
def collect_logged() -> Iterator[dict[str, list[Any]]]:
    """Yields a dict that collects what `log_extra` gets within the context."""
    logged: dict[str, list[Any]] = {}
    token = _LOGGED.set(logged)
    try:
        yield logged
    finally:
        _LOGGED.reset(token)


def stack_arrays(
    estimator: credit.Estimator,
    columns: Mapping[str, Any],
    logged: Mapping[str, Any],
    example: Any,
    known: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The arrays [B, ...] that the estimator reads and that are no statistics, in the example's order.

    Args:
        known: those that the learner has; they are not looked for.
    """
    mask = np.asarray(example.completion_mask) > 0
    known = {"extra.token_ids": np.asarray(example.completion_ids), **known}
    found = {name: array for name, array in known.items() if name in estimator.required_fields}
    places = {"log_extra": logged, "the data": columns}
    lengths, width = mask.sum(axis=1), mask.shape[1]
    for name in extra.list_given(FRAMEWORK, estimator):
        if name in found:
            continue
        values = extra.find_values(FRAMEWORK, estimator, name, places)
        array = extra.stack_rows(name, values, lengths.tolist(), width)
        if all(np.shape(row) == (length,) for row, length in zip(values, lengths, strict=True)):
            # A sampled padding token leaves a hole in the mask, which has no value.
            whole = np.zeros(mask.shape, array.dtype)
            whole[mask] = array[np.arange(array.shape[1]) < lengths[:, None]]
            array = whole
        found[name] = array
    return found
