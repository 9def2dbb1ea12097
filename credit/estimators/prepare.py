"""Rollouts as estimators see them: checked, without gradient, as floats, and 0 outside the mask."""

from array_api_compat import is_torch_array

from credit import validation
from credit.backends.arrays import (
    as_type,
    is_in_range,
    is_inspectable,
    make_masker,
    namespace,
    stop_gradient,
    to_numpy,
)
from credit.backends.row_batching import has_several_blocks
from credit.types import FIELDS, TOKEN_FIELDS, Array, Rollouts

_ROW_FLOATS = [name for name, rule in FIELDS.items() if rule.kind == "float" and name not in TOKEN_FIELDS]


def prepare_rollouts(name: str, rollouts: Rollouts, needs: tuple[str, ...]) -> Rollouts:
    """Validates and converts all fields.

    Raises:
        ValueError: one of the needs is None; shapes, devices or libraries differ; or, on host arrays
            outside tracing, a group id is outside 0..N-1.
    """
    return prepare_tokens(prepare_rows(name, rollouts, needs))


def prepare_rows(name: str, rollouts: Rollouts, needs: tuple[str, ...]) -> Rollouts:
    """Validates and converts the fields of all rows and the mask; the other [N, T] fields are untouched."""
    validation.check_rollout_shapes(rollouts)
    validation.check_needs(name, needs, rollouts)
    validation.check_group_ids(rollouts.groups)
    validation.check_valid_rewards(rollouts)
    rollouts = Rollouts(*(None if field is None else stop_gradient(field) for field in rollouts))
    xp = namespace(rollouts.rewards)
    dtype = xp.float64 if rollouts.rewards.dtype == xp.float64 else xp.float32

    floats = {name: getattr(rollouts, name) for name in _ROW_FLOATS}
    floats = {name: as_type(array, dtype) for name, array in floats.items() if array is not None}
    finite = xp.isfinite(floats["rewards"])
    if finite.ndim == 2:
        finite = xp.all(finite, axis=1)
    known = is_in_range(rollouts.groups, rollouts.groups.shape[0])
    valid = (finite if rollouts.valid is None else as_type(rollouts.valid, xp.bool)) & known
    groups, mask = _as_index_type(rollouts.groups), as_type(rollouts.mask, xp.bool)
    return rollouts._replace(
        groups=xp.where(known, groups, xp.zeros_like(groups)),
        mask=mask if is_inspectable(valid) and to_numpy(valid).all() else mask & valid[:, None],
        valid=valid,
        **floats,
    )


def prepare_tokens(rows: Rollouts) -> Rollouts:
    """Converts the other [N, T] fields of the given rows, with 0 on every token outside the mask."""
    dtype, inside = rows.rewards.dtype, make_masker(rows.mask)

    def convert(name: str, array: Array) -> Array:
        is_float = FIELDS[name].kind == "float"
        return inside(as_type(array, dtype) if is_float else _as_index_type(array))

    fields = {name: getattr(rows, name) for name in TOKEN_FIELDS}
    return rows._replace(
        **{name: convert(name, array) for name, array in fields.items() if array is not None}
    )


def slice_rows(rollouts: Rollouts, part: slice) -> Rollouts:
    """Those rows of the rollouts, as views."""
    if part == slice(None):
        return rollouts
    return Rollouts(*(f if f is None or f.ndim == 0 else f[part, ...] for f in rollouts))


def view_as_numpy(rows: Rollouts) -> Rollouts:
    """Torch tensors on a CPU as numpy arrays of the same memory, where there are several blocks of rows.

    Threads take whole blocks of numpy arrays, but share each operation on torch tensors, which is slower.
    Other rollouts are returned as they are.
    """
    given = [field for field in rows if field is not None]
    if not (is_torch_array(rows.mask) and has_several_blocks(rows.mask) and all(map(is_inspectable, given))):
        return rows
    return Rollouts(*(None if field is None else to_numpy(field) for field in rows))


def _as_index_type(array: Array) -> Array:
    """As integers that can count every token."""
    return as_type(array, namespace(array).__array_namespace_info__().default_dtypes()["indexing"])
