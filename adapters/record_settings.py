"""The settings that say which completions are recorded, without torch: slime reads them where it samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_record_settings(given: Mapping[str, Any], prefix: str = "") -> None:
    """Raises ValueError for wrong values of record_steps, record_completions and record_path, None: not set.

    The prefix is what users write before these names.
    """
    for name in ("record_steps", "record_completions"):
        if given.get(name) is not None:
            check_count(prefix + name, given[name])
    path = given.get("record_path")
    if path is None:
        return
    if not isinstance(path, str | Path) or path == "":
        raise ValueError(f"{prefix}record_path is {path!r}; expected a file's path, such as 'a.jsonl'")
    if given.get("record_steps") is None:
        raise ValueError(
            f"{prefix}record_path is set, and nothing is recorded; set {prefix}record_steps, or leave it out"
        )


def check_count(name: str, value: Any) -> None:
    """Raises ValueError unless the setting's value is 1, 2, ...; True, which Python takes for 1, is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number, 1 or more")
