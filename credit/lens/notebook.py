"""The page in a notebook."""

from html import escape

from credit.lens.page import page
from credit.lens.sources import Source, load


class Shown:
    """A page that a notebook displays, in a frame that cannot reach the notebook."""

    def __init__(self, html: str, height: int) -> None:
        self.html = html
        self.height = height

    def _repr_html_(self) -> str:
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{escape(self.html)}" width="100%" '
            f'height="{self.height}" style="border:0"></iframe>'
        )


def show(*sources: Source, height: int = 720) -> Shown:
    """Shows samples in a notebook.

    Args:
        sources: paths of files of records, each of which is a run, or completions from `read`.
        height: of the frame, in pixels.

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
    runs = load(*sources)
    return Shown(page(runs, ", ".join(runs)), height)
