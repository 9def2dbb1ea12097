"""Which verl this adapter hooks into, checked when it is imported."""

import inspect
from importlib.metadata import version
from typing import Any

from packaging.specifiers import SpecifierSet

SUPPORTED = ">=0.9.1,<0.10"


def check_version() -> None:
    """An ImportError unless the installed verl is in the supported range."""
    found = version("verl")
    if not SpecifierSet(SUPPORTED).contains(found, prereleases=True):
        raise ImportError(
            f"credit.adapters.verl supports verl {SUPPORTED} and found {found}; pip install 'verl{SUPPORTED}'"
        )


def check_signature(owner: Any, name: str, *parameters: str) -> None:
    """An ImportError unless `owner` has a function of that name with exactly these parameters."""
    function = getattr(owner, name, None)
    found = None if function is None else tuple(inspect.signature(function).parameters)
    if found != parameters:
        state = "is missing" if found is None else f"takes ({', '.join(found)})"
        raise ImportError(
            f"{owner.__name__}.{name} {state} in verl {version('verl')}; credit.adapters.verl expects "
            f"({', '.join(parameters)}), as in verl {SUPPORTED}"
        )
