"""Sight of what an estimator does to the tokens: records of completions, and views of them."""

from credit.lens.notebook import show
from credit.lens.page import page
from credit.lens.pieces import text_pieces
from credit.lens.records import Completion, read, record

__all__ = ["Completion", "page", "read", "record", "show", "text_pieces"]
