"""The benchmarks outside of this suite's environment: what one takes from another is there."""

import ast
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
MODULES = {path.stem: ast.parse(path.read_text()) for path in FILES}


def names(module):
    """What a module makes at its top level, without what it imports."""
    for node in MODULES[module].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("module", MODULES)
def test_what_a_benchmark_imports_from_its_neighbours_is_made_there(module):
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            assert {alias.name for alias in node.names} <= set(names(node.module)), node.module
