"""What the array API standard lacks, for every array library."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_jax_array, is_numpy_array, is_torch_array

Array = Any
_BITS = {4: "int32", 8: "int64"}  # by bytes per number
INTEGERS = frozenset(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
FLOATS = frozenset(("float16", "bfloat16", "float32", "float64"))
_READ = FLOATS | INTEGERS | {"bool"}


def namespace(*arrays: Array) -> Any:
    """The array API namespace of the arrays' common library."""
    return array_namespace(*arrays)


def find_fault(array: Array) -> str | None:
    """What is wrong with an array that cannot be read as plain numbers, completing "it is "; else None.

    Libraries are listed: what follows the standard may still be lazy, of unknown shape, or not copied to
    numpy, and each of the listed ones runs all tests.
    """
    if is_torch_array(array):
        from credit.backends.torch import tensors

        fault = tensors.find_fault(array)
    else:
        masked = isinstance(array, np.ma.MaskedArray | np.matrix)
        read = is_numpy_array(array) or is_jax_array(array) or _package(array) == "array_api_strict"
        fault = None if read and not masked else _name_type(array)
    if fault is None and dtype_name(array) not in _READ:
        return f"an array of {dtype_name(array)}"
    return fault


def dtype_name(array: Array) -> str:
    """The dtype's name by the standard, whatever the byte order: "float32", say."""
    return getattr(array.dtype, "name", None) or str(array.dtype).rpartition(".")[2]


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _name_type(value: object) -> str:
    package = _package(value)
    return f"a {type(value).__name__}" if package == "builtins" else f"a {package} {type(value).__name__}"


def is_in_range(ids: Array, count: int) -> Array:
    """Which ids lie in 0..count-1."""
    if is_torch_array(ids) and dtype_name(ids) in ("uint16", "uint32", "uint64"):
        ids = ids.long()  # torch does not compare these; what is beyond int64 turns negative
    return (ids >= 0) & (ids < count)


def one_hot(ids: Array, like: Array) -> Array:
    """1 where the last axis' index is the id [..., 1], else 0, in the shape and dtype of `like`."""
    xp = namespace(like)
    place = None if is_jax_array(like) else device(like)  # a traced JAX array has no device
    columns = xp.arange(like.shape[-1], dtype=ids.dtype, device=place)
    return xp.astype(xp.broadcast_to(columns, like.shape) == ids, like.dtype)


def group_sum(values: Array, groups: Array) -> Array:
    """Sum of `values` [N] over each row's group, for every row of it; NaN for an id outside 0..N-1."""
    return _group_reduce(values, groups, "sum")


def group_max(values: Array, groups: Array) -> Array:
    """Maximum of `values` [N] over each row's group, for every row of it; NaN as in `group_sum`."""
    return _group_reduce(values, groups, "max")


def stop_gradient(array: Array) -> Array:
    """The same values, through which no gradient flows."""
    if is_torch_array(array):
        return array.detach()
    if is_jax_array(array):
        from jax.lax import stop_gradient as stop

        return stop(array)
    return array


def apply_mask(array: Array, mask: Array, otherwise: Array | float | None = None) -> Array:
    """`array` [N, T] where the bool mask is set, and `otherwise` (0) elsewhere, even where it is NaN."""
    return make_masker(mask)(array, otherwise)


def make_masker(mask: Array) -> Callable[..., Array]:
    """`apply_mask` for many arrays of one mask: a function of array and otherwise."""
    xp = namespace(mask)

    def choose(array: Array, otherwise: Array | float | None = None) -> Array:
        return xp.where(mask, array, xp.zeros_like(array) if otherwise is None else otherwise)

    if not (_is_plain_on_cpu(mask) and mask.dtype == xp.bool):
        return choose

    @cache
    def keep(bits: str) -> Array:
        return as_type(-mask.view(xp.int8), getattr(xp, bits))

    def by_bits(array: Array, otherwise: Array | float | None = None) -> Array:
        """As `choose`, several times as fast with numpy and torch on a CPU."""
        bits = _BITS.get(array.dtype.itemsize)
        if bits is None or not _is_plain_on_cpu(array):
            return choose(array, otherwise)
        kind = getattr(xp, bits)
        if otherwise is None:
            return (array.view(kind) & keep(bits)).view(array.dtype)
        same = isinstance(otherwise, float)
        other: Array = xp.asarray(otherwise, dtype=array.dtype) if same else otherwise
        other = other.view(kind)
        return (((array.view(kind) ^ other) & keep(bits)) ^ other).view(array.dtype)

    return by_bits


def as_type(array: Array, dtype: Any) -> Array:
    """The array in that dtype; the same array where it has it already."""
    xp = namespace(array)
    if is_torch_array(array) and array.dtype == xp.bool and _is_plain_on_cpu(array):
        array = array.view(xp.uint8)  # which torch converts six times as fast
    return xp.astype(array, dtype, copy=False)


def is_writable(array: Array) -> bool:
    """Whether results can be written into such an array piece by piece: not where a program is traced."""
    if is_torch_array(array):
        from credit.backends.torch import tensors

        return tensors.is_plain(array)
    return is_numpy_array(array)


def is_inspectable(array: Array) -> bool:
    """Whether reading values costs no device synchronization and breaks no tracing."""
    if is_torch_array(array):
        from credit.backends.torch import tensors

        return tensors.is_inspectable(array)
    if is_jax_array(array):
        from jax.core import Tracer

        return not isinstance(array, Tracer) and {d.platform for d in array.devices()} == {"cpu"}
    return True


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """A copy on the host; a device is synchronized if it must be."""
    if not is_torch_array(array):
        return np.asarray(array)
    small = array.is_floating_point() and array.itemsize < 4  # numpy has no bfloat16
    return (array.float() if small else array).detach().cpu().numpy()


def from_numpy(array: Array, like: Array) -> Array:
    """A numpy array as an array of the library of `like`, in the same memory; other arrays unchanged."""
    if not is_torch_array(like) or is_torch_array(array):
        return array
    from credit.backends.torch import tensors

    return tensors.from_numpy(array)


def _is_plain_on_cpu(array: Array) -> bool:
    """A numpy array, or a plain torch tensor on a CPU without a gradient: its bits can be read."""
    return is_numpy_array(array) or (
        is_torch_array(array) and not array.requires_grad and is_inspectable(array)
    )


def _group_reduce(values: Array, groups: Array, how: str) -> Array:
    xp = namespace(values, groups)
    count = values.shape[0]
    known = is_in_range(groups, count)
    ids = xp.where(known, groups, xp.zeros_like(groups))
    slots: Any
    start = {"sum": 0.0, "max": -float("inf")}[how]
    values = xp.where(known, values, start)
    if is_torch_array(values):
        reduce = {"sum": "sum", "max": "amax"}[how]
        slots = values.new_full((count,), start).scatter_reduce(0, ids.long(), values, reduce)
        result = slots[ids.long()]
    elif is_jax_array(values):
        at = xp.full_like(values, start).at[ids]
        result = {"sum": at.add, "max": at.max}[how](values)[ids]
    elif is_numpy_array(values):
        slots = np.full_like(values, start)
        {"sum": np.add, "max": np.maximum}[how].at(slots, ids, values)
        result = slots[ids]
    else:  # O(N^2), for libraries without a scatter
        peers = xp.where(ids[:, None] == ids[None, :], values[None, :], start)
        result = {"sum": xp.sum, "max": xp.max}[how](peers, axis=1)
    return xp.where(known, result, float("nan"))
