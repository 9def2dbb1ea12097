"""No circle among the imports at the top of the modules, those for type checkers included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"credit": "credit", "credit.backends": "backends"}


def find_modules():
    """Path by dotted name, as installed."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if parts[0] not in ("adapters", "backends"):  # links from credit to the other folders
                name = ".".join([package, *parts])
                found[name.removesuffix(".__init__")] = path
    return found


def list_top_imports(tree):
    """Every import that is not inside a function: bodies of `if` and `try` and of classes count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from list_top_imports(node)


def find_imported(text, modules):
    """The modules of ours that the text imports; `from package import module` means the module."""
    for node in list_top_imports(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        else:
            names = [f"{node.module}.{name.name}" for name in node.names]
            names = [name if name in modules else node.module for name in names]
        yield from (name for name in names if name in modules)


def test_the_modules_of_credit_and_backends_import_each_other_in_no_circle():
    modules = find_modules()
    assert {"credit.estimators.base", "credit.backends.arrays", "credit.lens.records"} <= set(modules)
    graph = {name: set(find_imported(path.read_text(), modules)) for name, path in modules.items()}
    assert sum(map(len, graph.values())) > len(graph)
    TopologicalSorter(graph).prepare()


def test_a_circle_for_type_checkers_is_found():
    one = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from credit.b import B\n"
    texts = {
        "credit.a": one,
        "credit.b": "from credit import a\n",
        "credit.c": "def f():\n    import credit.b\n",
    }
    graph = {name: set(find_imported(text, texts)) for name, text in texts.items()}
    assert graph["credit.c"] == set()
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
