"""Completions in a terminal, their tokens colored by weight (needs rich)."""

from collections.abc import Iterable
from math import log2

import numpy as np
from rich.console import Console
from rich.text import Text

from credit.lens.completion import Completion
from credit.lens.descriptions import describe_all, describe_completion, escape_controls, pad_column

FULL_COLOR_WEIGHT = 4.0
MORE, LESS = (232, 135, 30), (74, 144, 217)
BARS = " ▁▂▃▄▅▆▇█"
MAX_BARS = 60


def show_in_terminal(completions: Iterable[Completion], console: Console | None = None) -> None:
    """Prints each completion with its tokens colored by weight, and a summary of all completions.

    Below each completion a strip of bars shows where along the response its credit goes.
    """
    console = console or Console(highlight=False)
    shown = list(completions)
    for line in shown:
        heading = Text(describe_completion(line), style="bold")
        console.print(heading, color_tokens(line), draw_weight_strip(line), Text(), sep="\n")
    console.print(Text(describe_all(shown)))


def color_tokens(line: Completion) -> Text:
    """The tokens: orange where the weight is above 1, blue where it is below, gray outside the mask."""
    text = Text()
    for piece, chosen, weight in zip(line.tokens, line.mask, line.weights, strict=True):
        text.append(escape_controls(piece), style=_style(weight) if chosen else "italic bright_black")
    return text


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
    weights, chosen = pad_column([line], "weights")[0], np.array(line.mask, bool)
    parts = np.array_split(np.arange(len(weights)), max(1, min(MAX_BARS, len(weights))))
    means = [float(np.mean(weights[p][chosen[p]])) if chosen[p].any() else 0.0 for p in parts]
    most = max(2.0, *means)
    return Text("".join(BARS[round(8 * mean / most)] for mean in means), style="cyan")
