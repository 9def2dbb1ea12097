"""Every backend has the functions of `backends/protocol.py`, with its signatures; and the table of limits."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from credit.backends import choose_backend, choose_sharded_backend, limits
from credit.backends.protocol import Backend, ShardedBackend

NAMES = {
    "array_api": "credit.backends.array_api",
    "numpy": "credit.backends.numpy.backend",
    "torch": "credit.backends.torch.backend",
    "jax": "credit.backends.jax.backend",
}
SHARDED = {"torch", "jax"}


def members(protocol):
    """The functions that this protocol, and not its base, asks for."""
    functions = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
    return {name: function for name, function in functions.items() if not name.startswith("_")}


REQUIRED, OPTIONAL = members(Backend), members(ShardedBackend)


@pytest.fixture(params=NAMES)
def name(request):
    if request.param in ("torch", "jax"):
        pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def backend(name):
    return import_module(NAMES[name])


def test_the_contract_has_members():
    assert set(REQUIRED) == {
        "token_statistics",
        "token_statistics_from_hidden",
        "log_probs_and_entropy",
        "selected_log_probs_from_hidden",
        "postprocess",
        "describe_path",
    }
    assert set(OPTIONAL) == {"locate_shard", "sharded_token_statistics", "sharded_log_probs_and_entropy"}


def assert_takes(function, contract):
    """The contract's parameters by name, order and kind; all others have defaults and only keywords."""
    expected = list(inspect.signature(contract).parameters.values())[1:]
    actual = list(inspect.signature(function).parameters.values())
    kept = [parameter for parameter in actual if parameter.name in {p.name for p in expected}]
    assert [(p.name, p.kind) for p in kept] == [(p.name, p.kind) for p in expected]
    for parameter in actual:
        if parameter not in kept:
            assert parameter.kind == inspect.Parameter.KEYWORD_ONLY, parameter
            assert parameter.default is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("member", REQUIRED)
def test_required_functions_have_the_signature_of_the_contract(backend, member):
    assert_takes(getattr(backend, member), REQUIRED[member])


@pytest.mark.parametrize("member", OPTIONAL)
def test_optional_functions_have_it_or_their_absence_is_a_clear_error(name, backend, member):
    assert isinstance(backend, ShardedBackend) == (name in SHARDED)
    assert hasattr(backend, member) == (name in SHARDED)
    if name in SHARDED:
        assert_takes(getattr(backend, member), OPTIONAL[member])


def test_a_library_without_the_optional_functions_is_refused(library):
    array = library.asarray(np.zeros((2, 3), np.float32))
    if library.name in SHARDED:
        assert choose_sharded_backend(array) is choose_backend(array)
        return
    with pytest.raises(ValueError, match=f"arrays of {library.name}; a sharded vocabulary needs torch"):
        choose_sharded_backend(array)


def test_a_forced_reference_names_the_way_out(library, monkeypatch):
    monkeypatch.setenv("CREDIT_BACKEND", "array_api")
    with pytest.raises(ValueError, match="process_group= was given .* and CREDIT_BACKEND unset"):
        choose_sharded_backend(library.asarray(np.zeros(3, np.float32)))


def test_each_library_has_its_backend(library, monkeypatch):
    array = library.asarray(np.zeros((2, 3), np.float32))
    name = library.name if library.name in NAMES else "array_api"
    assert choose_backend(array) is import_module(NAMES[name])
    assert choose_backend(array).describe_path(array)
    monkeypatch.setenv("CREDIT_BACKEND", "array_api")
    assert choose_backend(array) is import_module(NAMES["array_api"])


def test_all_functions_of_a_backend_agree_with_the_reference(library):
    """Small shapes: what a new backend gets wrong first."""
    rng = np.random.default_rng(0)
    reference = import_module(NAMES["array_api"])
    x, y, hidden, head = (rng.normal(size=s).astype("f4") for s in ((2, 3, 7), (2, 3, 7), (2, 3, 5), (7, 5)))
    ids, options = rng.integers(7, size=(2, 3)), {"scale": 0.5, "soft_cap": 3.0, "chunk": 4}
    given = [library.asarray(array) for array in (x, y, hidden, head)]
    index = library.asarray(ids.astype("i4" if library.name == "jax" else "i8"))
    backend = choose_backend(index)
    biases = {"policy_bias": None, "reference_bias": None}

    def run(module, arrays, ids):
        x, y, hidden, head = arrays
        fields = module.token_statistics(x, y, ids, 0.7, ("kl", "sum_squares"))
        yield from fields
        yield from module.token_statistics_from_hidden(
            hidden, head, hidden, 2.0 * head, ids, 0.7, ("entropy", "reverse_kl"), **biases, **options
        )
        yield from module.log_probs_and_entropy(x, ids, 0.7)
        yield module.selected_log_probs_from_hidden(hidden, head, ids, 0.7, bias=None, **options)
        yield from module.postprocess(fields, ids, ids > 2, 6)

    results = zip(run(backend, given, index), run(reference, (x, y, hidden, head), ids), strict=True)
    for actual, expected in results:
        np.testing.assert_allclose(library.numpy(actual), expected, rtol=1e-5, atol=1e-6)


def test_every_limit_is_explained_and_used():
    """A constant of the table has a docstring below it, and code that reads it."""
    folder = Path(limits.__file__).parent
    body = ast.parse((folder / "limits.py").read_text()).body[1:]
    names = [node.targets[0].id for node in body[::2]]
    assert all(isinstance(node, ast.Expr) and isinstance(node.value.value, str) for node in body[1::2])
    assert len(names) == len(set(names)) > 20
    code = "".join(path.read_text() for path in folder.rglob("*.py"))
    assert not [name for name in names if f"limits.{name}" not in code]


def test_every_limit_is_read_when_code_runs():
    """A default of a parameter or a constant of a module would keep the value that the import found."""
    for path in Path(limits.__file__).parent.rglob("*.py"):
        early = list(read_at_import(ast.parse(path.read_text())))
        assert not early, f"{path.name} reads limits at import in line {early[0]}; read it in the function"


def read_at_import(node):
    """The lines below a node that read `limits.NAME` outside the body of a function."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.Attribute)
            and isinstance(child.value, ast.Name)
            and child.value.id == "limits"
        ):
            yield child.lineno
        elif isinstance(child, ast.Lambda | ast.FunctionDef):
            yield from read_at_import(child.args)
        else:
            yield from read_at_import(child)
