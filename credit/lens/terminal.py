"""Completions in a terminal, their tokens colored by weight (needs rich)."""

from collections.abc import Iterable
from math import isnan, log2

import numpy as np
from rich.console import Console
from rich.text import Text

from credit.lens.completion import Completion
from credit.lens.descriptions import group_by_estimator
from credit.lens.headings import escape_token, find_fault, format_heading, format_summary, pad_columns

FULL_COLOR_WEIGHT = 4.0
MORE, LESS = (232, 135, 30), (74, 144, 217)
BARS = " ▁▂▃▄▅▆▇█"
UNKNOWN = "·"
MAX_BARS = 60


def show_in_terminal(
    completions: Iterable[Completion], console: Console | None = None, title: str | None = None
) -> None:
    """Prints each completion with its tokens colored by weight, and a summary for each estimator.

    Below each completion a strip of bars shows where along the response its credit goes.
    """
    console = console or Console(highlight=False)
    sides = group_by_estimator(completions) or {"": []}
    for description, lines in sides.items():
        titles = [title] if title is not None else []
        titles += [description] if len(sides) > 1 else []
        if titles:
            console.print(Text(escape_token(" · ".join(titles)), style="bold underline"), Text(), sep="\n")
        for line in lines:
            console.print(style_heading(line), color_tokens(line), draw_weight_strip(line), Text(), sep="\n")
        console.print(Text(format_summary(lines)))


def style_heading(line: Completion) -> Text:
    """The heading of the completion, with what is wrong with it."""
    heading, fault = Text(format_heading(line), style="bold"), find_fault(line)
    if fault:
        heading.append(f"   {fault}{' (reversed)' if line.valid else ''}", style="bold red")
    return heading


def color_tokens(line: Completion) -> Text:
    """The tokens: orange where the weight is above 1, blue where it is below, gray outside the mask.

    A token without a weight, as all of an invalid row, is in reverse video.
    """
    text = Text()
    for piece, chosen, weight in zip(line.tokens, line.mask, pad_columns([line], "weights")[0], strict=True):
        text.append(escape_token(piece), style=_style(weight) if chosen else "italic bright_black")
    return text


def _style(weight: float) -> str:
    if isnan(weight):
        return "reverse"
    x = max(-1.0, min(1.0, log2(max(weight, 1e-9)) / log2(FULL_COLOR_WEIGHT)))
    red, green, blue = MORE if x > 0 else LESS
    # White letters on the color mixed with black are legible on light and on dark terminals.
    share = 0.75 * abs(x)
    mixed = [round(share * c + 30 * (1 - share)) for c in (red, green, blue)]
    return f"#f4f4f4 on #{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"


def draw_weight_strip(line: Completion) -> Text:
    """Mean weight along the response, as bars; a full bar is 2 or the largest mean, a dot is unknown."""
    weights, chosen = pad_columns([line], "weights")[0], np.array(line.mask, bool)
    parts = np.array_split(np.arange(len(weights)), max(1, min(MAX_BARS, len(weights))))
    means = [float(np.mean(weights[p][chosen[p]])) if chosen[p].any() else 0.0 for p in parts]
    most = max([2.0, *(mean for mean in means if not isnan(mean))])
    bars = (UNKNOWN if isnan(mean) else BARS[round(8 * mean / most)] for mean in means)
    return Text("".join(bars), style="cyan")
