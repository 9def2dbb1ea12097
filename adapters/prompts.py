"""Prompts as text, for the records that credit.lens shows."""

import json
from typing import Any


def write_prompt(prompt: Any) -> str:
    """A prompt as text; messages as JSON, with <image> in place of an image."""
    if isinstance(prompt, str):
        return prompt
    messages = [
        message | {"content": _write_parts(message["content"])}
        if isinstance(message.get("content"), list)
        else message
        for message in prompt
    ]
    return json.dumps(messages, ensure_ascii=False, default=str)


def _write_parts(parts: list[dict[str, Any]]) -> str:
    return "".join(part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in parts)
