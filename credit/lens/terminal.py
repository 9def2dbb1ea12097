"""Completions in a terminal, their tokens colored by weight (needs rich)."""

import unicodedata
from collections.abc import Iterable
from math import log2
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from credit.estimators import metrics
from credit.lens.completion import Completion

FULL_COLOR_WEIGHT = 4.0
MORE, LESS = (232, 135, 30), (74, 144, 217)
BARS = " ▁▂▃▄▅▆▇█"
MAX_BARS = 60


def show_in_terminal(
    completions: Iterable[Completion], console: Console | None = None, title: str | None = None
) -> None:
    """Prints each completion with its tokens colored by weight, and a summary of all completions.

    Below each completion a strip of bars shows where along the response its credit goes.
    """
    console = console or Console(highlight=False)
    shown = list(completions)
    if title is not None:
        console.print(Text(escape_token(title), style="bold underline"), Text(), sep="\n")
    for line in shown:
        console.print(format_heading(line), color_tokens(line), draw_weight_strip(line), Text(), sep="\n")
    console.print(format_summary(shown))


def format_heading(line: Completion) -> Text:
    """The step, group and row of the completion, its reward and its advantage."""
    step = "" if line.step is None else f"step {line.step} "
    reward = line.reward if isinstance(line.reward, list) else [line.reward]
    rewards = " ".join("?" if r is None else f"{r:g}" for r in reward)
    advantage = "?" if line.advantage is None else f"{line.advantage:+.3g}"
    spread = np.std(_weights(line)) if any(line.mask) else 0.0
    text = f"{step}group {line.group} row {line.row}   r {rewards}   A {advantage}   std w {spread:.3g}"
    return Text(text, style="bold")


def color_tokens(line: Completion) -> Text:
    """The tokens: orange where the weight is above 1, blue where it is below, gray outside the mask."""
    text = Text()
    for piece, chosen, weight in zip(line.tokens, line.mask, line.weights, strict=True):
        text.append(escape_token(piece), style=_style(weight) if chosen else "italic bright_black")
    return text


def escape_token(piece: str) -> str:
    """The text with control characters, which a terminal would obey, made visible; line breaks are kept."""
    shown = {"\n": "⏎\n", "\t": "⇥", "": "◌"}
    if piece in shown:
        return shown[piece]
    return "".join(shown.get(c) or _escape_control(c) for c in piece)


def _escape_control(character: str) -> str:
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return chr(0x2400 + ord(character)) if ord(character) < 32 else "\ufffd"


def _style(weight: float | None) -> str:
    if weight is None:
        return "reverse"
    x = max(-1.0, min(1.0, log2(max(weight, 1e-9)) / log2(FULL_COLOR_WEIGHT)))
    red, green, blue = MORE if x > 0 else LESS
    # White letters on the color mixed with black are legible on light and on dark terminals.
    share = 0.75 * abs(x)
    mixed = [round(share * c + 30 * (1 - share)) for c in (red, green, blue)]
    return f"#f4f4f4 on #{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"


def draw_weight_strip(line: Completion) -> Text:
    """Mean weight along the response, as bars; a full bar is 2 or the largest mean."""
    weights, chosen = _pad([line], "weights")[0], np.array(line.mask, bool)
    parts = np.array_split(np.arange(len(weights)), max(1, min(MAX_BARS, len(weights))))
    means = [float(np.mean(weights[p][chosen[p]])) if chosen[p].any() else 0.0 for p in parts]
    most = max(2.0, *means)
    return Text("".join(BARS[round(8 * mean / most)] for mean in means), style="cyan")


def format_summary(lines: list[Completion]) -> Text:
    """The metrics that show how strongly the estimator redistributes."""
    mask = _pad(lines, "mask") != 0
    scored = all(line.deviation is not None for line in lines)
    observed = {"deviation": _pad(lines, "deviation")} if scored else {}
    weights = np.where(mask, _pad(lines, "weights"), 0.0)
    found = metrics.token_metrics(metrics.describe_responses(weights, mask, observed, uniform=False))
    listed = "   ".join(f"{name} {float(value):.4g}" for name, value in found.items())
    return Text(f"{len(lines)} completions   {listed}")


def _weights(line: Completion) -> Any:
    return _pad([line], "weights")[0][np.array(line.mask, bool)]


def _pad(lines: list[Completion], name: str) -> Any:
    """One column of all completions [N, T]; missing numbers are NaN, and padding is 0."""
    result = np.zeros((len(lines), max(len(line.tokens) for line in lines)))
    for row, line in enumerate(lines):
        result[row, : len(line.tokens)] = np.array(getattr(line, name), float)
    return result
