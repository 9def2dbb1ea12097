"""Functions that options name."""

from functools import cache
from importlib import import_module


@cache
def load_function(path):
    """The attribute that the last part of the path names, of the module before it."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
