"""The page: one HTML file that holds its style, its script and the samples, and loads nothing."""

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from credit.lens.payload import pack
from credit.lens.records import Completion, read

SCRIPTS = ("formulas", "samples", "weights", "tokens", "model", "list", "reader", "controls", "main")
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
Source = str | Path | Iterable[Completion]


def page(completions: Iterable[Completion], title: str) -> str:
    """The HTML of the completions; a ValueError where there are none.

    Nothing of them can become markup or script: the JSON holds no `<`, `>` or `&`, the script sets text
    only, and the page's own policy runs no script but the one whose hash it names.
    """
    about, numbers = pack(completions)
    if len(about["start"]) < 2:
        raise ValueError(f"{title} holds no completions")
    web = files("credit.lens") / "web"
    style, template = (web.joinpath(name).read_text("utf-8") for name in ("style.css", "index.html"))
    scripts = "\n".join(web.joinpath(f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{scripts}\n}})();'
    parts = {
        "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "about": embed(about | {"title": title}),
        "numbers": base64.b64encode(numbers).decode(),
        "script": script,
    }
    head, *rest = template.split("@")
    # Of the pieces between two @ every other one is a name; what is put in is not looked at again.
    return head + "".join(parts[piece] if i % 2 == 0 else piece for i, piece in enumerate(rest))


def embed(value: Any) -> str:
    """JSON that can stand in a <script> element: no text of it ends the element or opens another."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(UNSAFE)


def load(source: Source) -> tuple[str, Iterable[Completion]]:
    """A title and the completions of a file, or of completions themselves."""
    if isinstance(source, str | Path):
        return os.path.basename(source), read(source)
    return "samples", source


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
