"""What the views in text say: a heading for each completion, a summary of all, and tokens made visible."""

import unicodedata
from math import isnan
from typing import Any

import numpy as np

from credit.estimators import metrics
from credit.lens.completion import Completion


def format_heading(line: Completion) -> str:
    """The step, group and row of the completion, its reward and its advantage."""
    step = "" if line.step is None else f"step {line.step} "
    reward = line.reward if isinstance(line.reward, list) else [line.reward]
    rewards = " ".join(format_number(each, "g") for each in reward)
    advantage = format_number(line.advantage if line.valid else None, "+.3g")
    weights = choose_column(line, "weights")
    spread = format_number(float(np.std(weights)) if len(weights) else 0.0)
    return f"{step}group {line.group} row {line.row}   r {rewards}   A {advantage}   std w {spread}"


def find_fault(line: Completion) -> str:
    """That the completion took no part, or which of its weights are missing; "" where nothing is wrong."""
    if not line.valid:
        return "invalid: took no part"
    weights = choose_column(line, "weights")
    missing = int(np.isnan(weights).sum())
    return f"{missing} of {len(weights)} weights missing" if missing else ""


def format_summary(lines: list[Completion]) -> str:
    """The metrics that show how strongly the estimator redistributes, over the rows that have all weights."""
    valid = [line for line in lines if line.valid]
    whole = [line for line in valid if _has_all(line, "weights")]
    computed = [line for line in whole if line.deviation is not None]
    scored = [line for line in computed if _has_all(line, "deviation")]
    left_out = {"invalid": len(lines) - len(valid), "with missing weights": len(valid) - len(whole)}
    listed = ", ".join(f"{count} {what}" for what, count in left_out.items() if count)
    found = _measure_weights(whole) | _measure_deviation(scored)
    parts = [
        f"{len(lines)} completion{'s' * (len(lines) != 1)}" + (f" (left out: {listed})" if listed else "")
    ]
    parts += [f"{name} {value:.4g}" for name, value in found.items()] or ["no weights to sum up"]
    if computed and len(scored) < len(whole):
        parts.append(f"(deviation of {len(scored)})")
    return "   ".join(parts)


def format_number(value: float | None, form: str = ".3g") -> str:
    """The number in that format, or "?" where it is missing."""
    return "?" if value is None or isnan(value) else format(value, form)


def escape_token(piece: str) -> str:
    """The text with control characters, which a terminal would obey, made visible; line breaks are kept."""
    shown = {"\n": "⏎\n", "\t": "⇥", "": "◌"}
    if piece in shown:
        return shown[piece]
    return "".join(shown.get(c) or _escape_control(c) for c in piece)


def choose_column(line: Completion, name: str) -> Any:
    """The numbers of the tokens of the mask."""
    return pad_columns([line], name)[0][np.array(line.mask, bool)]


def pad_columns(lines: list[Completion], name: str) -> Any:
    """One column of all completions [N, T]: padding is 0, what is missing NaN, as weights of invalid rows."""
    result = np.zeros((len(lines), max(len(line.tokens) for line in lines)))
    for row, line in enumerate(lines):
        missing = name == "weights" and not line.valid
        result[row, : len(line.tokens)] = np.nan if missing else np.array(getattr(line, name), float)
    return result


def _escape_control(character: str) -> str:
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return chr(0x2400 + ord(character)) if ord(character) < 32 else "\ufffd"


def _measure_weights(lines: list[Completion]) -> dict[str, float]:
    if not any(any(line.mask) for line in lines):
        return {}
    mask = pad_columns(lines, "mask") != 0
    weights = np.where(mask, pad_columns(lines, "weights"), 0.0)
    found = metrics.token_metrics(metrics.describe_responses(weights, mask, {}, uniform=False))
    return {name: float(value) for name, value in found.items()}


def _measure_deviation(lines: list[Completion]) -> dict[str, float]:
    chosen = np.concatenate([choose_column(line, "deviation") for line in lines]) if lines else np.zeros(0)
    return {"deviation_mean": chosen.mean(), "deviation_max": chosen.max()} if len(chosen) else {}


def _has_all(line: Completion, name: str) -> bool:
    """Whether every token of the mask has that number."""
    return not np.isnan(choose_column(line, name)).any()
