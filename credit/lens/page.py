"""The page: one HTML file that holds its style, its script and the samples, and loads nothing."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template
from typing import Any

from credit.lens.completion import Completion
from credit.lens.payload import pack
from credit.lens.sources import Runs

STYLES = ("style", "batch")
SCRIPTS = (
    *("formulas", "samples", "slices", "format", "elements", "weights", "tokens", "colors"),
    *("selection", "align", "compare", "model"),
    *("link", "list", "pointer", "numbers", "reader", "settings", "sorting", "controls", "verdict", "views"),
    *("statistics", "aggregates", "measures", "charts", "texts", "panels", "batch", "main"),
)
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page(completions: Iterable[Completion] | Runs, title: str, note: str | None = None) -> str:
    """The HTML of a page that shows the completions.

    No text of a completion can become markup or script: the JSON holds no `<`, `>` or `&`, the script
    inserts text only, and the page's content security policy allows no script but the one whose hash it
    names.

    Args:
        completions: from `read`, or several runs: a mapping from the name of each to its completions.
        title: shown at the top of the page, such as the name of the file.
        note: a text to show above everything. Default: none.

    Raises:
        ValueError: there are no completions.

    Example:
        >>> from credit import lens
        >>> completion = lens.Completion(
        ...     format=1, step=None, row=0, group=0, prompt=None, reward=1.0, valid=True, advantage=1.0,
        ...     progress=None, estimator={"name": "grpo"}, tokens=["Yes"], mask=[1], log_probs=None,
        ...     reference_log_probs=None, deviation=None, normalized_entropy=None, turns=None, scores=None,
        ...     weights=[1.0], advantages=[1.0],
        ... )
        >>> lens.page([completion], title="one answer").splitlines()[0]
        '<!doctype html>'
    """
    about, numbers = pack(completions if isinstance(completions, Mapping) else {title: completions})
    if len(about["start"]) < 2:
        raise ValueError(f"{title} holds no completions; expected at least one record to show")
    style = "\n".join(_read_web(f"{name}.css") for name in STYLES)
    scripts = "\n".join(_read_web(f"{name}.js") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{scripts}\n}})();'
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_read_web("index.html")).substitute(
        policy=policy,
        style=style,
        about=embed(about | {"title": title, "note": note}),
        numbers=base64.b64encode(numbers).decode(),
        script=script,
    )


def embed(value: Any) -> str:
    """JSON that can stand in a <script> element: no text in it ends the element or opens another."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(UNSAFE)


def _read_web(name: str) -> str:
    return files("credit.lens").joinpath("web", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
