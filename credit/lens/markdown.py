"""Completions as Markdown, for trackers that show text: tokens that hold more than their share are bold."""

import string
from collections.abc import Iterable, Iterator
from itertools import groupby

from credit.lens.completion import Completion
from credit.lens.headings import escape_token, find_fault, format_heading, format_number, format_summary

LISTED_TOKENS = 10
PROMPT_ENDS = 100, 300  # characters of a long prompt that are shown, from its start and from its end
COLUMNS = {"w": "weights", "d": "deviation", "h": "normalized_entropy", "A": "advantages"}
LEGEND = (
    "<strong>Bold</strong>: tokens that hold more than their share (w &#62; 1). <em>Italic</em>: tokens that "
    "the policy did not choose. <code>Code</code>: tokens whose weight is missing."
)
# Markdown and HTML give no character that is written as its number a meaning.
AS_NUMBERS = {ord(c): f"&#{ord(c)};" for c in string.punctuation} | {ord("\n"): "<br>"}


def format_markdown(completions: Iterable[Completion]) -> str:
    """The Markdown of a summary, and of each completion with a table of the tokens that hold most credit.

    No text of a completion can become markup, a link or an image: its punctuation is written as character
    references. Control characters are made visible.

    Args:
        completions: from `read` or `parse_records`.

    Raises:
        ValueError: there are no completions.

    Example:
        >>> from credit import lens
        >>> completion = lens.Completion(
        ...     format=1, step=3, row=0, group=0, prompt="Is it?", reward=1.0, valid=True, advantage=1.0,
        ...     progress=None, estimator={"name": "dgpo"}, tokens=["Yes", ", it is"], mask=[1, 1],
        ...     log_probs=None, reference_log_probs=None, deviation=[0.2, 0.1],
        ...     normalized_entropy=[0.5, 0.25], turns=None, scores=None, weights=[1.5, 0.5],
        ...     advantages=[1.5, 0.5],
        ... )
        >>> print(lens.format_markdown([completion]).split("#### ")[1].rstrip())
        step 3 group 0 row 0   r 1   A &#43;1   std w 0&#46;5
        <BLANKLINE>
        <p>Prompt: Is it&#63;</p>
        <BLANKLINE>
        <p><strong>Yes</strong>&#44; it is</p>
        <BLANKLINE>
        | t | token | w | d | h | A |
        | --- | --- | --- | --- | --- | --- |
        | 0 | Yes | 1.5 | 0.2 | 0.5 | 1.5 |
    """
    lines = list(completions)
    if not lines:
        raise ValueError("completions is empty; expected at least one completion to show")
    blocks = [format_summary(lines).translate(AS_NUMBERS), LEGEND]
    return "\n\n".join([*blocks, *(block for line in lines for block in _format_completion(line))]) + "\n"


def _format_completion(line: Completion) -> Iterator[str]:
    fault = find_fault(line)
    badge = f"   <strong>{fault.translate(AS_NUMBERS)}</strong>" if fault else ""
    yield f"#### {format_heading(line).translate(AS_NUMBERS)}{badge}"
    if line.prompt is not None:
        yield f"<p>Prompt: {_escape(_shorten(line.prompt))}</p>"
    places = range(len(line.tokens))
    runs = (
        (style, "".join(_escape(line.tokens[place]) for place in run))
        for style, run in groupby(places, lambda place: _choose_style(line, place))
    )
    yield f"<p>{''.join(f'<{style}>{text}</{style}>' if style else text for style, text in runs)}</p>"
    listed = [place for place in places if _choose_style(line, place) in ("strong", "code")]
    if listed:
        yield _format_table(line, sorted(listed, key=lambda place: -(line.weights[place] or float("inf"))))


def _choose_style(line: Completion, place: int) -> str:
    """The HTML element that a token is shown in; "" is none."""
    weight = line.weights[place]
    if not line.mask[place]:
        return "em"
    if weight is None:
        return "code"
    return "strong" if round(weight, 3) > 1 else ""  # equal weights are 1 up to rounding


def _format_table(line: Completion, places: list[int]) -> str:
    """The first of those tokens with their numbers; a statistic that was not computed has no column."""
    columns = {label: getattr(line, name) for label, name in COLUMNS.items()}
    present = {label: values for label, values in columns.items() if values is not None}
    heads = ["t", "token", *present]
    rows = [heads, ["---"] * len(heads)]
    for place in places[:LISTED_TOKENS]:
        token = escape_token(line.tokens[place]).replace("\n", "").replace(" ", "␣")
        numbers = [format_number(values[place]) for values in present.values()]
        rows.append([str(place), token.translate(AS_NUMBERS), *numbers])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shorten(text: str) -> str:
    start, end = PROMPT_ENDS
    return text if len(text) <= start + end else f"{text[:start]} … {text[-end:]}"


def _escape(text: str) -> str:
    return escape_token(text).translate(AS_NUMBERS)
