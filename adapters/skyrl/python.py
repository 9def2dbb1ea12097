"""Whether SkyRL's modules for training can be imported by this Python."""

import sys
from importlib import import_module

from pydantic.errors import PydanticUserError


def refuse_unimportable() -> None:
    """Raises ImportError, with the reason, where pydantic refuses SkyRL's own types.

    SkyRL puts a TypedDict of `typing` into a model of pydantic 2, which takes it from Python 3.12 on.
    """
    try:
        import_module("skyrl.tinker.types")
    except PydanticUserError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ImportError(
            f"SkyRL's modules for training cannot be imported on Python {version}: skyrl.tinker.types puts a "
            "typing.TypedDict into a model of pydantic, which allows that from Python 3.12 on; use Python "
            "3.12"
        ) from error
