"""What the array API standard lacks, for every array library."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_jax_array, is_numpy_array, is_torch_array

Array = Any


def namespace(*arrays: Array) -> Any:
    """The array API namespace of the arrays' common library."""
    return array_namespace(*arrays)


def group_sum(values: Array, groups: Array) -> Array:
    """Sum of `values` [N] over each row's group, given back to the row; NaN for an id outside 0..N-1."""
    return _group_reduce(values, groups, "sum")


def group_max(values: Array, groups: Array) -> Array:
    """Maximum of `values` [N] over each row's group, given back to the row; NaN as in `group_sum`."""
    return _group_reduce(values, groups, "max")


def stop_gradient(array: Array) -> Array:
    """The same values, through which no gradient flows."""
    if is_torch_array(array):
        return array.detach()
    if is_jax_array(array):
        from jax.lax import stop_gradient as stop

        return stop(array)
    return array


def inspectable(array: Array) -> bool:
    """Whether reading values costs no device synchronisation and breaks no tracing."""
    if is_torch_array(array):
        from credit.backends.torch import inspectable as torch_inspectable

        return torch_inspectable(array)
    if is_jax_array(array):
        from jax.core import Tracer

        return not isinstance(array, Tracer) and {d.platform for d in array.devices()} == {"cpu"}
    return True


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """A copy on the host; a device is synchronised if it must be."""
    if not is_torch_array(array):
        return np.asarray(array)
    small = array.is_floating_point() and array.itemsize < 4  # numpy has no bfloat16
    return (array.float() if small else array).detach().cpu().numpy()


def _group_reduce(values: Array, groups: Array, how: str) -> Array:
    xp = namespace(values, groups)
    count = values.shape[0]
    known = (groups >= 0) & (groups < count)
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
