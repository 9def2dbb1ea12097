"""Estimators of the user's own, by a module's name, or by a file as OpenRLHF's other flags take it.

An estimator reaches Ray's workers by a reference to its class, so that they have to find its module too. A
file is a module there by the same name, wherever the worker runs; it is read when the class is asked for.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

FLAG = "--credit.plugin"
FILES = "CREDIT_PLUGIN_FILES"  # in the environment of Ray's workers: the paths by the modules' names
PREFIX = "credit_plugin_"  # of such modules, so that a file may be called as any module is


class FileFinder(MetaPathFinder):
    """Finds the modules that are files of the user's."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.files:
            return None
        if not os.path.isfile(self.files[name]):
            raise ModuleNotFoundError(
                f"{FLAG} {self.files[name]} is no file here; give a path that every node of Ray has",
                name=name,
            )
        return spec_from_file_location(name, self.files[name])


_FINDER = FileFinder({})


def load(value: str) -> str:
    """Imports the file or module that the flag names; returns the name by which the others import it.

    Raises:
        ValueError: there is none. An error within it is raised as it is.
    """
    if value.endswith(".py"):
        name = _add_file(value)
        import_module(name)
        return name
    if value in list_missing([value]):
        raise ValueError(f"{FLAG} {value}: no module of that name is found; {_find_way_out(value)}")
    import_module(value)
    return value


def files_by_name() -> dict[str, str]:
    """The environment variable that makes workers find the same files."""
    return {FILES: json.dumps(_FINDER.files)} if _FINDER.files else {}


def find_files() -> None:
    """Makes this process find the files that its environment names."""
    _install(json.loads(os.environ.get(FILES, "{}")))


def list_missing(names: Sequence[str]) -> list[str]:
    """Those of the modules that this process does not find; packages around them are imported."""

    def is_missing(name: str) -> bool:
        if not all(part.isidentifier() for part in name.split(".")):
            return True
        try:
            return find_spec(name) is None
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the package is there, and what it imports is not
            return True

    return [name for name in names if is_missing(name)]


def _add_file(value: str) -> str:
    path = Path(value).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"{FLAG} {value}: there is no such file; give its path, or the name of a module")
    name = PREFIX + re.sub(r"\W", "_", path.stem)
    other = _FINDER.files.get(name, str(path))
    if other != str(path):
        raise ValueError(f"{FLAG} {value}: {other} has the same name; rename one of them")
    _install({name: str(path)})
    return name


def _install(files: dict[str, str]) -> None:
    _FINDER.files |= files
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def _find_way_out(value: str) -> str:
    paths = [Path(f"{value}.py"), Path(value.replace(".", "/") + ".py")]
    found = [str(path) for path in paths if path.is_file()]
    if found:
        return f"to load the file, give {found[0]}"
    return "give a module that Python finds, or the path of a .py file"
