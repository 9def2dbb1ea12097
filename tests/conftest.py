"""The array libraries under test, behind one small interface."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from running import quick_jit

from credit import hints
from credit.estimators.base import CLASSES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests go first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: "in_the_interpreter" not in item.name)


class Library(NamedTuple):
    """An array library: how arrays get in and out, and how a function of arrays is called."""

    name: str
    asarray: Callable[[Any], Any]
    call: Callable[[Callable[..., Any]], Callable[..., Any]]  # compiles the function on JAX, as users do
    quick: Callable[[Callable[..., Any]], Callable[..., Any]]  # the same in a third of the time

    @staticmethod
    def numpy(array: Any) -> np.ndarray:
        """The values on the host; bfloat16 as float32."""
        if type(array).__module__ == "torch":
            small = array.is_floating_point() and array.itemsize == 2
            return (array.float() if small else array).detach().cpu().numpy()
        return np.asarray(array)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def numpy_library() -> Iterator[Library]:
    yield Library("numpy", np.asarray, plain, plain)


def torch_library() -> Iterator[Library]:
    torch = pytest.importorskip("torch")
    yield Library("torch", lambda array: torch.from_numpy(np.array(array)), plain, plain)


def jax_library() -> Iterator[Library]:
    jax = pytest.importorskip("jax")
    before = jax.config.jax_numpy_dtype_promotion
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    yield Library("jax", jax.numpy.asarray, jax.jit, quick_jit)
    jax.config.update("jax_numpy_dtype_promotion", before)  # optax, for one, needs it


def strict_library() -> Iterator[Library]:
    strict = pytest.importorskip("array_api_strict")
    flags = {"boolean_indexing": False, "data_dependent_shapes": False, "enabled_extensions": ()}
    with strict.ArrayAPIStrictFlags(**flags):
        yield Library("array_api_strict", strict.asarray, plain, plain)


LIBRARIES = {"numpy": numpy_library, "torch": torch_library, "jax": jax_library, "strict": strict_library}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint that one test has provoked is given to the next test too, whichever worker runs it."""
    monkeypatch.setattr(hints, "_SAID", set())


@pytest.fixture
def own_registry() -> Iterator[None]:
    """Classes that a test defines are forgotten after it."""
    before = dict(CLASSES)
    yield
    CLASSES.clear()
    CLASSES.update(before)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    """Each array library in turn."""
    yield from LIBRARIES[request.param]()
