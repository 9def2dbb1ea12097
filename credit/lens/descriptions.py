"""What the views in text say: a heading for each completion, a summary of all, and tokens made visible."""

import unicodedata
from math import isnan
from typing import Any

import numpy as np

from credit.estimators import metrics
from credit.lens.completion import Completion


def describe_completion(line: Completion) -> str:
    """The step, group and row of the completion, its reward and its advantage, and whether it counts."""
    step = "" if line.step is None else f"step {line.step} "
    reward = line.reward if isinstance(line.reward, list) else [line.reward]
    rewards = " ".join(format_number(each, "g") for each in reward)
    advantage = format_number(line.advantage, "+.3g")
    weights = pad_column([line], "weights")[0][np.array(line.mask, bool)]
    spread = format_number(float(np.std(weights)) if len(weights) else 0.0)
    badge = "" if line.valid else "   invalid"
    return f"{step}group {line.group} row {line.row}   r {rewards}   A {advantage}   std w {spread}{badge}"


def describe_all(lines: list[Completion]) -> str:
    """The metrics that show how strongly the estimator redistributes."""
    mask = pad_column(lines, "mask") != 0
    scored = all(line.deviation is not None for line in lines)
    observed = {"deviation": pad_column(lines, "deviation")} if scored else {}
    weights = np.where(mask, pad_column(lines, "weights"), 0.0)
    found = metrics.token_metrics(metrics.describe_responses(weights, mask, observed, uniform=False))
    listed = "   ".join(f"{name} {float(value):.4g}" for name, value in found.items())
    return f"{len(lines)} completions   {listed}"


def format_number(value: float | None, form: str = ".3g") -> str:
    """The number with those digits, or "?" where it is missing."""
    return "?" if value is None or isnan(value) else format(value, form)


def escape_controls(text: str) -> str:
    """The text with control characters, which its reader might obey, made visible; line breaks are kept."""
    shown = {"\n": "⏎\n", "\t": "⇥"}
    return "".join(shown.get(c) or _escape_control(c) for c in text) or "◌"


def pad_column(lines: list[Completion], name: str) -> Any:
    """One column of all completions [N, T]; missing numbers are NaN, and padding is 0."""
    result = np.zeros((len(lines), max(len(line.tokens) for line in lines)))
    for row, line in enumerate(lines):
        result[row, : len(line.tokens)] = np.array(getattr(line, name), float)
    return result


def _escape_control(character: str) -> str:
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return chr(0x2400 + ord(character)) if ord(character) < 32 else "\ufffd"
