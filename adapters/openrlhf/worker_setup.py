"""What every Ray worker runs at its start: two of OpenRLHF's classes are replaced where they are defined.

Nothing of OpenRLHF is imported here, so that vLLM's workers stay free of it.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Assigning to them in the driver does nothing: Ray's workers import OpenRLHF anew.
THEIRS = "openrlhf.trainer.ppo_utils."
REPLACED = {  # module: its class, and the module and class of credit's
    THEIRS + "experience_maker": ("RemoteExperienceMaker", "maker", "CreditExperienceMaker"),
    THEIRS + "samples_generator": ("SamplesGenerator", "sampling", "CreditSamplesGenerator"),
}


class ReplacingFinder(MetaPathFinder):
    """Finds the modules of REPLACED as usual and replaces their class once they have run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in REPLACED:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_replace(module: ModuleType) -> None:
                run(module)
                replace_class(module)

            spec.loader.exec_module = run_and_replace  # type: ignore[method-assign]
        return spec


def install_import_hook() -> None:
    """The target of Ray's worker_process_setup_hook."""
    if not is_installed():
        sys.meta_path.insert(0, ReplacingFinder())


def is_installed() -> bool:
    """Whether this process replaces OpenRLHF's classes."""
    return any(isinstance(finder, ReplacingFinder) for finder in sys.meta_path)


def replace_class(module: ModuleType) -> None:
    """Puts credit's subclass in place of the class of the module."""
    theirs, place, ours = REPLACED[module.__name__]
    setattr(module, theirs, getattr(import_module(f"credit.adapters.openrlhf.{place}"), ours))
