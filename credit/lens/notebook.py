"""The page in a notebook."""

from html import escape

from credit.lens.page import Source, load, page


class Shown:
    """A page that a notebook displays, in a frame without access to the notebook."""

    def __init__(self, html: str, height: int) -> None:
        self.html = html
        self.height = height

    def _repr_html_(self) -> str:
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{escape(self.html)}" width="100%" '
            f'height="{self.height}" style="border:0"></iframe>'
        )


def show(source: Source, *, height: int = 720) -> Shown:
    """Shows samples in a notebook: a file of records, or completions from `read`.

    Raises:
        ValueError: a line of the file is no record, or there are no completions.
    """
    title, completions = load(source)
    return Shown(page(completions, title), height)
