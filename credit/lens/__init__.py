"""Records of completions with the credit of each token, and views of them: page, notebook, terminal."""

from credit.lens.completion import Completion
from credit.lens.notebook import show
from credit.lens.page import page
from credit.lens.pieces import text_pieces
from credit.lens.records import read, record

__all__ = ["Completion", "page", "read", "record", "show", "text_pieces"]
