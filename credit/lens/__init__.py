"""Sight of what an estimator does to the tokens: records of completions, and views of them."""

from credit.lens.pieces import text_pieces
from credit.lens.records import Completion, read, record

__all__ = ["Completion", "read", "record", "text_pieces"]
