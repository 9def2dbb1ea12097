"""Prints the table of what each framework gives each estimator: python -m credit.adapters.table

An adapter's record is loaded from its file, since importing the adapter needs its framework.
"""

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from credit.adapters import extra, traits
from credit.adapters.framework import Framework
from credit.estimators.base import Estimator
from credit.estimators.registry import estimator_classes


def load_records() -> dict[str, Framework]:
    """The record of each adapter, by the name of its folder."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*/hooks.py")):
        name = path.parent.name
        spec = spec_from_file_location(f"credit_hooks_of_{name}", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no module")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        found[name] = module.FRAMEWORK
    return found


def list_estimators() -> dict[str, Estimator]:
    """The estimators of the package that need no setting, by name."""
    kinds = {
        name: kind for name, kind in estimator_classes().items() if kind.__module__.startswith("credit.")
    }
    required = {
        name: any(f.is_required() for f in kind.model_fields.values()) for name, kind in kinds.items()
    }
    return {name: kind() for name, kind in sorted(kinds.items()) if not required[name]}  # type: ignore[call-arg]


def list_missing(framework: Framework, estimator: Estimator) -> tuple[str, ...]:
    """What the estimator reads and the framework cannot have; empty if it can be fed."""
    several = traits.weighs_rewards(estimator) and not framework.several_rewards
    missing = [name for name in estimator.required_fields if not framework.can_have(name)]
    return (*(["several rewards"] if several else []), *missing)


def write_markdown() -> str:
    """The table: a row per estimator, a column per framework."""
    records = list(load_records().values())
    rows = [f"| estimator | {' | '.join(each.name for each in records)} |", "|---" * (len(records) + 1) + "|"]
    for name, estimator in list_estimators().items():
        cells = [_describe(framework, estimator) for framework in records]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _describe(framework: Framework, estimator: Estimator) -> str:
    missing = list_missing(framework, estimator)
    if missing:
        return f"no: {', '.join(missing)}"
    given = extra.list_given(framework, estimator)
    return f"with your {', '.join(f'`{name}`' for name in given)}" if given else "yes"


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; there are no flags but --help."""
    parser = argparse.ArgumentParser(
        "python -m credit.adapters.table", description=__doc__, allow_abbrev=False
    )
    parser.parse_args(arguments)
    print(write_markdown(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
