"""Completions in a terminal, their tokens colored by weight (needs rich)."""

import unicodedata
from collections.abc import Iterable
from math import isnan, log2
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from credit.estimators import metrics
from credit.lens.completion import Completion

FULL_COLOR_WEIGHT = 4.0
MORE, LESS = (232, 135, 30), (74, 144, 217)
BARS = " ▁▂▃▄▅▆▇█"
UNKNOWN = "·"
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
    """The step, group and row of the completion, its reward and advantage, and which weights are missing."""
    step = "" if line.step is None else f"step {line.step} "
    reward = line.reward if isinstance(line.reward, list) else [line.reward]
    rewards = " ".join("?" if r is None else f"{r:g}" for r in reward)
    known = line.valid and line.advantage is not None
    advantage = f"{line.advantage:+.3g}" if known else "?"
    weights = _choose(line, "weights")
    missing = int(np.isnan(weights).sum())
    spread = "?" if missing else f"{np.std(weights) if len(weights) else 0.0:.3g}"
    text = f"{step}group {line.group} row {line.row}   r {rewards}   A {advantage}   std w {spread}"
    heading = Text(text, style="bold")
    if not line.valid:
        heading.append("   invalid: took no part", style="bold red")
    elif missing:
        heading.append(f"   {missing} of {len(weights)} weights missing (reversed)", style="bold red")
    return heading


def color_tokens(line: Completion) -> Text:
    """The tokens: orange where the weight is above 1, blue where it is below, gray outside the mask.

    A token without a weight, as all of an invalid row, is in reverse video.
    """
    text = Text()
    for piece, chosen, weight in zip(line.tokens, line.mask, _pad([line], "weights")[0], strict=True):
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
    weights, chosen = _pad([line], "weights")[0], np.array(line.mask, bool)
    parts = np.array_split(np.arange(len(weights)), max(1, min(MAX_BARS, len(weights))))
    means = [float(np.mean(weights[p][chosen[p]])) if chosen[p].any() else 0.0 for p in parts]
    most = max([2.0, *(mean for mean in means if not isnan(mean))])
    bars = (UNKNOWN if isnan(mean) else BARS[round(8 * mean / most)] for mean in means)
    return Text("".join(bars), style="cyan")


def format_summary(lines: list[Completion]) -> Text:
    """The metrics that show how strongly the estimator redistributes, over the rows that have all weights."""
    valid = [line for line in lines if line.valid]
    whole = [line for line in valid if _has_all(line, "weights")]
    computed = [line for line in whole if line.deviation is not None]
    scored = [line for line in computed if _has_all(line, "deviation")]
    left_out = {"invalid": len(lines) - len(valid), "with missing weights": len(valid) - len(whole)}
    listed = ", ".join(f"{count} {what}" for what, count in left_out.items() if count)
    found = _measure_weights(whole) | _measure_deviation(scored)
    parts = [f"{len(lines)} completion{'' if len(lines) == 1 else 's'}" + (f" (left out: {listed})" if listed else "")]
    parts += [f"{name} {value:.4g}" for name, value in found.items()] or ["no weights to sum up"]
    if computed and len(scored) < len(whole):
        parts.append(f"(deviation of {len(scored)})")
    return Text("   ".join(parts))


def _measure_weights(lines: list[Completion]) -> dict[str, float]:
    if not any(any(line.mask) for line in lines):
        return {}
    mask = _pad(lines, "mask") != 0
    weights = np.where(mask, _pad(lines, "weights"), 0.0)
    found = metrics.token_metrics(metrics.describe_responses(weights, mask, {}, uniform=False))
    return {name: float(value) for name, value in found.items()}


def _measure_deviation(lines: list[Completion]) -> dict[str, float]:
    chosen = np.concatenate([_choose(line, "deviation") for line in lines]) if lines else np.zeros(0)
    return {"deviation_mean": chosen.mean(), "deviation_max": chosen.max()} if len(chosen) else {}


def _has_all(line: Completion, name: str) -> bool:
    """Whether every token of the mask has that number."""
    return not np.isnan(_choose(line, name)).any()


def _choose(line: Completion, name: str) -> Any:
    """The numbers of the tokens of the mask."""
    return _pad([line], name)[0][np.array(line.mask, bool)]


def _pad(lines: list[Completion], name: str) -> Any:
    """One column of all completions [N, T]: padding is 0, what is missing NaN, as weights of invalid rows."""
    result = np.zeros((len(lines), max(len(line.tokens) for line in lines)))
    for row, line in enumerate(lines):
        missing = name == "weights" and not line.valid
        result[row, : len(line.tokens)] = np.nan if missing else np.array(getattr(line, name), float)
    return result
