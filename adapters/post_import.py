"""Functions that run right after a framework's module has been imported.

A process that never imports the module does not pay for it, and one that does finds everything in place.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Action = Callable[[ModuleType], None]

_ACTIONS: dict[str, Action] = {}


class PostImportFinder(MetaPathFinder):
    """Finds modules that have an action as the other finders do, and adds the action to their execution."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _ACTIONS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: ModuleType) -> None:
                execute(module)
                _ACTIONS[name](module)

            spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


def call_after_import(name: str, action: Action) -> None:
    """Calls `action` with the module of that name once it has been imported; at once if it already is."""
    _ACTIONS[name] = action
    if name in sys.modules:
        action(sys.modules[name])
    elif not any(isinstance(finder, PostImportFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, PostImportFinder())


def has_action(name: str) -> bool:
    """Whether a function will be called after the module's import in this process."""
    return name in _ACTIONS
