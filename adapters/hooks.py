"""Which framework an adapter hooks into, checked when the adapter is imported."""

import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.specifiers import SpecifierSet


def check_version(distribution: str, supported: str) -> None:
    """An ImportError unless the installed release of the framework is in the supported range."""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        raise ImportError(
            f"credit's adapter needs {distribution}, which is not installed; "
            f"pip install '{distribution}{supported}'"
        ) from None
    if not SpecifierSet(supported).contains(found, prereleases=True):
        raise ImportError(
            f"credit supports {distribution} {supported} and found {found}; "
            f"pip install '{distribution}{supported}'"
        )


def check_signature(distribution: str, owner: Any, name: str, *parameters: str) -> None:
    """An ImportError unless `owner` has a function of that name with exactly these parameters."""
    function = getattr(owner, name, None)
    found = None if function is None else tuple(inspect.signature(function).parameters)
    if found != parameters:
        state = "is missing" if found is None else f"takes ({', '.join(found)})"
        raise ImportError(
            f"{owner.__name__}.{name} {state} in {distribution} {version(distribution)}; credit expects "
            f"({', '.join(parameters)})"
        )
