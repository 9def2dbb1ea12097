"""Records of completions with the credit of each token, and views of them: page, notebook, terminal."""

from credit.lens.batches import recompute
from credit.lens.completion import Completion
from credit.lens.lines import format_records
from credit.lens.markdown import format_markdown
from credit.lens.notebook import show
from credit.lens.page import page
from credit.lens.pieces import text_pieces
from credit.lens.records import append_records, parse_records, read, record

__all__ = [
    "Completion",
    "append_records",
    "format_markdown",
    "format_records",
    "page",
    "parse_records",
    "read",
    "recompute",
    "record",
    "show",
    "text_pieces",
]
