"""The page in a notebook."""

import shlex
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from credit.lens.completion import Completion
from credit.lens.page import page
from credit.lens.sources import Source, load
from credit.lens.subset import Entry, fit, observe, read_places


class Shown:
    """A page that a notebook displays, in a frame that cannot reach the notebook."""

    def __init__(self, html: str, height: int) -> None:
        self.html = html
        self.height = height

    @property
    def size(self) -> int:
        """Bytes of the output."""
        return len(self._repr_html_().encode())

    def _repr_html_(self) -> str:
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{escape(self.html)}" width="100%" '
            f'height="{self.height}" style="border:0"></iframe>'
        )


def show(*sources: Source, height: int = 720, max_mb: float | None = 2.0) -> Shown:
    """Shows samples in a notebook.

    The notebook stores its outputs, and a Jupyter server lets through 3 MB within 3 s by default. Where
    all completions make a larger output than `max_mb`, whole groups spread evenly over the records are
    shown, with a note that tells how to see all.

    Args:
        sources: paths of files of records, each of which is a run, or completions from `read`; or mappings
            from the name of a run to either.
        height: of the frame, in pixels.
        max_mb: largest output, in units of 10^6 bytes; None is no limit.

    Raises:
        ValueError: a line of the file is not a record, or there are no completions.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from credit import DGPO, Rollouts, lens
        >>> ones = np.ones((1, 2))
        >>> rollouts = Rollouts(ones[0, :1], np.array([0]), ones, deviation=ones, normalized_entropy=ones)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lens.record(
        ...         f"{folder}/samples.jsonl",
        ...         tokens=[["2", "+"]],
        ...         rollouts=rollouts,
        ...         result=DGPO()(rollouts),
        ...         estimator=DGPO(),
        ...     )
        ...     shown = lens.show(f"{folder}/samples.jsonl", height=480)
        >>> shown.height
        480
    """
    kept = [_keep(source) for source in sources]
    runs, entries = load(*kept), list[Entry]()
    title = ", ".join(runs)
    whole = Shown(page(observe(runs, entries), title), height)
    size = whole.size
    if max_mb is None or size <= max_mb * 1e6:
        return whole
    known: dict[int, tuple[str, Completion]] = {}

    def render(places: list[int], how: str) -> Shown:
        if not known.keys() >= set(places):
            known.update(read_places(load(*kept), set(places)))
        part: dict[str, list[Completion]] = {}
        for name, completion in (known[place] for place in places):
            part.setdefault(name, []).append(completion)
        note = (
            f"Shown: {len(places)} of {len(entries)} completions, {how}. All of them make an output of "
            f"{size / 1e6:.1f} MB, more than max_mb={max_mb:g} allows. {_tell_ways(kept)}"
        )
        return Shown(page(part, title, note), height)

    return fit(entries, size, max_mb * 1e6, render)


def _keep(source: Source) -> Source:
    """The source in a form that can be read twice."""
    if isinstance(source, Mapping):
        return {name: _keep_run(each) for name, each in source.items()}
    return _keep_run(source)


def _keep_run(source: str | Path | Iterable[Completion]) -> str | Path | list[Completion]:
    return source if isinstance(source, str | Path) else list(source)


def _tell_ways(sources: list[Source]) -> str:
    """How to see all completions; the command where all of them are in files."""
    given = [each for one in sources for each in (one.values() if isinstance(one, Mapping) else [one])]
    paths = [shlex.quote(str(each)) for each in given if isinstance(each, str | Path)]
    command = f"python -m credit.lens {' '.join(paths)} -o lens.html"
    other = f", or write a page of its own: {command}" if len(paths) == len(given) else ""
    return f"To see all, call show(..., max_mb=None){other}"
