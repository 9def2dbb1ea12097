"""Prompts from a file, as dicts with at least a `prompt`."""

import json
from pathlib import Path
from typing import Any


def read_prompts(path: str | Path, count: int | None = None) -> list[dict[str, Any]]:
    """The prompts of a file: objects from JSON lines (.jsonl, .json), or one prompt per line of a text file.

    Args:
        path: of the file; empty lines are skipped.
        count: only the first so many. Default: all.

    Raises:
        ValueError: the file holds no prompts, or a line of JSON is not an object whose prompt is a text or
            a chat's list of messages.
    """
    with Path(path).open(encoding="utf-8") as file:
        numbered = [(i, line.rstrip("\n")) for i, line in enumerate(file, start=1) if line.strip()][:count]
    if not numbered:
        raise ValueError(f"{path} holds no prompts; expected one per line")
    if Path(path).suffix not in (".jsonl", ".json"):
        return [{"prompt": line} for _, line in numbered]
    return [_parse_prompt(f"{path}, line {number}", line) for number, line in numbered]


def _parse_prompt(where: str, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str | list):
        raise ValueError(f'{where}: expected an object such as {{"prompt": "2+2="}}')
    return value
