"""The array libraries of this machine and their devices."""

from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

Array = Any


class Place(NamedTuple):
    """A library on a device: how arrays get there and back."""

    library: str
    version: str
    device: str
    put: Callable[[Any], Array]
    get: Callable[[Array], Any]


def list_places() -> list[Place]:
    """Every library that is installed, on each of its devices; accelerators come first."""
    return sorted(_list_libraries(), key=lambda place: place.device.endswith("cpu"))


def _list_libraries() -> Iterator[Place]:
    yield Place("numpy", np.__version__, "cpu", np.asarray, np.asarray)
    if find_spec("array_api_strict"):
        strict = import_module("array_api_strict")
        version = metadata.version("array_api_strict")
        yield Place("array_api_strict", version, "cpu", strict.asarray, np.asarray)
    if find_spec("torch"):
        yield from _list_torch_devices()
    if find_spec("jax"):
        yield from _list_jax_devices()


def _list_torch_devices() -> Iterator[Place]:
    torch = import_module("torch")

    def make_place(device: str, name: str) -> Place:
        def put(array: Any) -> Any:
            return torch.as_tensor(array).to(device)

        return Place("torch", torch.__version__, name, put, lambda array: array.cpu().numpy())

    yield make_place("cpu", "cpu")
    for index in range(torch.cuda.device_count()):
        yield make_place(f"cuda:{index}", f"{index} {torch.cuda.get_device_name(index)}")


def _list_jax_devices() -> Iterator[Place]:
    jax = import_module("jax")

    def make_place(device: Any) -> Place:
        def put(array: Any) -> Any:
            return jax.device_put(array, device)

        return Place("jax", jax.__version__, f"{device.id} {device.device_kind}", put, np.asarray)

    platforms = {"cpu", jax.default_backend()}
    for platform in sorted(platforms):
        yield from (make_place(device) for device in jax.devices(platform))
