"""What imports what: the layers point one way, and importing the library imports no framework."""

import ast
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import credit

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"trl", "verl", "openrlhf", "transformers", "accelerate", "ray", "vllm", "deepspeed"}
ARRAYS = {"torch", "jax", "jaxlib", "triton", "tensorflow", "cupy"}
CORE = sorted([*(ROOT / "credit").glob("*.py"), *(ROOT / "credit" / "estimators").glob("*.py")])
LENS = sorted((ROOT / "credit" / "lens").glob("*.py"))
BACKENDS = sorted((ROOT / "backends").rglob("*.py"))


def imported(path):
    """Every module that a file imports, anywhere in it, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def loaded_after(statement):
    """The top-level modules of a fresh interpreter after the statement."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import credit",
        "import credit.backends, credit.backends.arrays",
        "import credit.adapters",
        "import credit.lens",
        "import numpy as np, credit; ones = np.ones((2, 3)); ids = np.zeros(2, int); "
        "credit.DGPO()(credit.Rollouts(ids, ids, ones, deviation=ones, normalized_entropy=ones))",
    ],
    ids=["credit", "backends", "adapters", "lens", "a call"],
)
def test_no_framework_is_loaded(statement):
    loaded = loaded_after(statement)
    assert "credit" in loaded
    assert not loaded & (FRAMEWORKS | ARRAYS)
    assert not loaded & {"backends", "adapters", "rich"}


@pytest.mark.parametrize(
    ("adapter", "package"),
    [
        ("trl", "trl>="),
        ("verl.registry", "verl>="),
        ("openrlhf", "openrlhf>="),
        ("tunix", "google-tunix>="),
        ("swift", "ms-swift>="),
        ("skyrl", "skyrl>="),
    ],
)
def test_an_adapter_without_its_framework_says_what_to_install(adapter, package):
    name = package.rstrip("=>.0123456789")
    if find_spec(adapter.split(".")[0]):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ImportError, match=f"needs {name}, which is not installed; pip install '{package}"):
        import_module(f"credit.adapters.{adapter}")


def importing(paths, *prefixes):
    """What each of the files imports of these packages or modules, where it imports any: {file: names}."""
    found = {
        str(path.relative_to(ROOT)): {
            n for n in imported(path) for p in prefixes if f"{n}.".startswith(f"{p}.")
        }
        for path in paths
    }
    assert len(found) > 1
    return {path: names for path, names in found.items() if names}


def test_the_core_knows_no_framework_and_no_adapter():
    assert not importing([*CORE, *LENS], *FRAMEWORKS, *ARRAYS, "credit.adapters")


def test_nothing_below_the_lens_knows_it():
    assert not importing([*CORE, *BACKENDS], "credit.lens")


def test_a_backend_imports_of_credit_only_backends():
    assert not importing(BACKENDS, *FRAMEWORKS)
    ours = importing(BACKENDS, "credit")
    assert not [
        path for path, names in ours.items() if any(not n.startswith("credit.backends") for n in names)
    ]


def test_a_backend_imports_its_own_library_only():
    for path in BACKENDS:
        folder = path.relative_to(ROOT / "backends").parts[0]
        own = {"torch": {"torch", "triton"}, "jax": {"jax", "jaxlib"}}.get(folder, set())
        at_the_top = {
            name.split(".")[0]
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names])
        }
        assert at_the_top & ARRAYS <= own, path


def test_the_public_names_are_there_and_documented():
    assert sorted(set(credit.__all__)) == sorted(credit.__all__)
    for name in credit.__all__:
        assert getattr(credit, name).__doc__, name
