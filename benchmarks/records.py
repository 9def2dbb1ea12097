"""Files of results that are whole at any moment, also where the process is killed while it writes."""

import json
import os
from pathlib import Path
from typing import Any

UNFINISHED = 75  # the exit status where only the time was over: os.EX_TEMPFAIL, which Windows lacks


def write_json(path: Path, value: Any) -> None:
    """Replaces the file at once."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(new, path)


def read_json(path: Path) -> Any:
    """What was written, or an empty dict."""
    return json.loads(path.read_text()) if path.exists() else {}


def read_lines(path: Path) -> list[Any]:
    """The lines of a file to which they are appended, without one that was cut."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
