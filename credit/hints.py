"""Warnings that are given once per process."""

import warnings

_SAID: set[str] = set()


def warn_once(topic: str, message: str, stacklevel: int) -> None:
    """A UserWarning, unless one of that topic was given before; `stacklevel` counts from the caller."""
    if topic not in _SAID:
        warnings.warn(f"{message} (said once)", stacklevel=stacklevel + 1)
        _SAID.add(topic)
