"""Arrays that a user gives by name, as `Rollouts.extra` has them, from what a framework holds of each row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from credit.adapters.framework import Framework
from credit.estimators.base import Estimator
from credit.fields import EXTRA, EXTRAS
from credit.types import FIELDS

DTYPES = (np.bool_, np.int64, np.float32)


class Kind(NamedTuple):
    """What the rows of one array are; of several processes' rows, each is the smallest."""

    per_token: int
    """1 if every row has one value per token of its response."""
    dtype: int
    """-2 for floats, -1 for integers, 0 for bool."""


def list_given(framework: Framework, estimator: Estimator) -> tuple[str, ...]:
    """The arrays that the estimator reads and the user has to give, such as "extra.scores"."""
    return tuple(
        name
        for name in estimator.required_fields
        if name in framework.given or (name.startswith(EXTRA) and name not in framework.provides)
    )


def find_values(
    framework: Framework, estimator: Estimator, name: str, places: Mapping[str, Mapping[str, Any]]
) -> Any:
    """What the batch has under that name, of the columns by name at each of the places.

    Raises:
        ValueError: no place has it, or several have.
    """
    column = name.removeprefix(EXTRA)
    found = [place for place, columns in places.items() if column in columns]
    if len(found) == 1:
        return places[found[0]][column]
    needs = f"{framework.name_of(estimator)} needs {name}"
    if found:
        raise ValueError(
            f"{needs}, and {' and '.join(found)} both have a {column!r}; give one of them another name"
        )
    names = sorted({each for columns in places.values() for each in columns})
    raise ValueError(
        f"{needs}, but this batch has no {column!r}; it has {', '.join(names) or 'none'}. In "
        f"{framework.name} it comes from {framework.extra}"
    )


def stack_rows(
    name: str,
    rows: Sequence[Any],
    lengths: Sequence[int],
    width: int,
    agree: Callable[[Kind], Sequence[int]] = tuple,
    floats: type[np.floating] = np.float32,
) -> np.ndarray:
    """The array [N], [N, T] or [N, K] of rows that are numbers, or lists, arrays or tensors of numbers.

    Rows with one value per token of their responses become [N, T], with 0 behind them; other rows of one
    length [N, K]. Floats become `floats` and integers int64.

    Args:
        name: as in `needs`; of a name that the library knows, the shape and the kind of numbers are known.
        rows: one for each response, in their order.
        lengths: the number of tokens of each response.
        width: T.
        agree: makes the kind of the rows of all processes of that of these rows.
        floats: float64 for rewards, of which float32 may lose what tells them apart.

    Raises:
        ValueError: a row has no numbers, or the rows fit no shape.
    """
    if len(rows) != len(lengths):
        raise ValueError(f"{name} has {len(rows)} rows for {len(lengths)} responses; give one for each")
    arrays = [_read_row(name, place, row) for place, row in enumerate(rows)]
    kind = Kind(*agree(_find_kind(arrays, lengths)))
    rule = FIELDS.get(name) or EXTRAS.get(name)
    dtype = DTYPES[-kind.dtype] if rule is None else {"integer": np.int64}.get(rule.kind, np.float32)
    dtype = floats if dtype is np.float32 else dtype
    if kind.per_token or (rule is not None and rule.shape == "[N, T]"):
        _check_lengths(name, arrays, lengths, "one value per token")
        whole = np.zeros((len(arrays), width), dtype)
        for row, array in zip(whole, arrays, strict=True):
            row[: len(array)] = array
        return whole
    if len({array.shape for array in arrays}) > 1:
        expected = "a number in every row, one value per token in every row, or as many values in all rows"
        _check_lengths(name, arrays, lengths, expected)
        raise ValueError(f"{name} differs in shape between the rows of this process and another's")
    return np.stack(arrays).astype(dtype)


def _read_row(name: str, place: int, row: Any) -> np.ndarray:
    if hasattr(row, "detach"):
        row = row.detach().cpu()
        halved = row.is_floating_point() and row.dtype.itemsize < 4  # numpy has no bfloat16
        row = (row.float() if halved else row).numpy()
    try:
        array = np.asarray(row)
    except ValueError:  # lists of several lengths
        array = np.asarray(None)
    if array.ndim == 1 and not len(array):
        array = array.astype(np.bool_)  # an empty list says nothing of its kind
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        raise ValueError(
            f"{name} of row {place} is {row!r:.80}; expected a number, or numbers in one list or array"
        )
    return array


def _find_kind(arrays: Sequence[np.ndarray], lengths: Sequence[int]) -> Kind:
    each = [a.ndim == 1 and len(a) == length for a, length in zip(arrays, lengths, strict=True)]
    kinds = {array.dtype.kind for array in arrays}
    return Kind(int(all(each)), -2 if "f" in kinds else -1 if kinds & set("iu") else 0)


def _check_lengths(name: str, arrays: Sequence[np.ndarray], lengths: Sequence[int], expected: str) -> None:
    for place, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
        if array.shape != (length,):
            has = f"{len(array)} values" if array.ndim else "a number"
            raise ValueError(
                f"{name} of row {place} has {has}, and its response {length} tokens; expected {expected}"
            )
