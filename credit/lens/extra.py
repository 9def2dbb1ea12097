"""Further values of completions, such as the answer or the tool calls, as JSON can hold them."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from array_api_compat import is_array_api_obj

from credit.backends.arrays import to_numpy
from credit.lens.completion import Completion


def convert_extra(extra: Mapping[str, Sequence[Any]] | None, rows: int) -> list[dict[str, Any]]:
    """The further fields of each of N completions: arrays become lists, and what is not finite becomes None.

    Raises:
        ValueError: a name is a field of every completion, a column does not have N values, or JSON has no
            such value.
    """
    columns = {name: _convert_column(name, values, rows) for name, values in (extra or {}).items()}
    return [{name: column[row] for name, column in columns.items()} for row in range(rows)]


def _convert_column(name: str, values: Sequence[Any], rows: int) -> list[Any]:
    where = f"extra[{name!r}]"
    if name in Completion.model_fields:
        raise ValueError(f"{where} is a field of every completion; expected another name, such as my_{name}")
    if is_array_api_obj(values):
        values = to_numpy(values).tolist()  # at once, since each copy from a device waits for it
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        kind = type(values).__name__
        raise ValueError(f"{where} is a {kind}; expected a list of {rows} values, one per completion")
    if len(values) != rows:
        raise ValueError(f"{where} has {len(values)} values; expected {rows}, one per completion")
    return [convert_value(f"{where}[{row}]", value) for row, value in enumerate(values)]


def convert_value(where: str, value: Any) -> Any:
    """The value as JSON can hold it; `where` says in an error what it is."""
    if is_array_api_obj(value):
        value = to_numpy(value).tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list | tuple):
        return [convert_value(f"{where}[{place}]", each) for place, each in enumerate(value)]
    if isinstance(value, Mapping):
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise ValueError(f"{where} has the key {strange[0]!r}; expected keys that are text, as in JSON")
        return {key: convert_value(f"{where}[{key!r}]", each) for key, each in value.items()}
    raise ValueError(
        f"{where} is a {type(value).__name__}; expected what JSON can hold: text, numbers, booleans, None, "
        "and lists and dictionaries of them; write it as text with str()"
    )
