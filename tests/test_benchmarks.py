"""The benchmarks outside of this suite's environment: what one takes from another is there."""

import ast
from pathlib import Path

FILES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
MODULES = {path.stem: ast.parse(path.read_text()) for path in FILES}


def names(module):
    """What a module makes at its top level, without what it imports."""
    for node in MODULES[module].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_what_a_benchmark_imports_from_its_neighbours_is_made_there():
    found = [
        (path.name, node.module, {alias.name for alias in node.names})
        for path in FILES
        for node in ast.walk(MODULES[path.stem])
        if isinstance(node, ast.ImportFrom) and node.module in MODULES
    ]
    assert found
    assert not [(file, module) for file, module, taken in found if not taken <= set(names(module))]
