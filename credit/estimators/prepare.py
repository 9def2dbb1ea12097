"""Rollouts as estimators see them: checked, without gradient, as floats, and 0 outside the mask."""

from typing import Any

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
from credit.fields import find_rule, is_per_token, list_arrays, map_arrays, replace_arrays
from credit.several_rewards import find_scored_rows
from credit.types import Array, Rollouts


def prepare_rollouts(name: str, rollouts: Rollouts, needs: tuple[str, ...]) -> Rollouts:
    """Validates and converts all arrays.

    Raises:
        ValueError: one of the needs is None; shapes, devices or libraries differ; or, on host arrays
            outside tracing, a group id is outside 0..N-1.
    """
    return prepare_tokens(prepare_rows(name, rollouts, needs))


def prepare_rows(name: str, rollouts: Rollouts, needs: tuple[str, ...]) -> Rollouts:
    """Validates and converts the arrays of all rows and the mask; the other arrays [N, T] are untouched."""
    validation.check_rollout_shapes(rollouts)
    validation.check_needs(name, needs, rollouts)
    validation.check_group_ids(rollouts.groups)
    validation.check_valid_rewards(rollouts)
    rollouts = map_arrays(stop_gradient, rollouts)
    xp = namespace(rollouts.rewards)
    dtype = xp.float64 if rollouts.rewards.dtype == xp.float64 else xp.float32
    known = is_in_range(rollouts.groups, rollouts.groups.shape[0])
    rollouts = replace_arrays(
        rollouts,
        {
            name: _convert(name, array, rollouts.mask, dtype)
            for name, array in list_arrays(rollouts).items()
            if not is_per_token(name, array, rollouts.mask)
        },
    )
    valid = (find_scored_rows(rollouts.rewards) if rollouts.valid is None else rollouts.valid) & known
    groups, mask = rollouts.groups, rollouts.mask
    return rollouts._replace(
        groups=xp.where(known, groups, xp.zeros_like(groups)),
        mask=mask if is_inspectable(valid) and to_numpy(valid).all() else mask & valid[:, None],
        valid=valid,
    )


def prepare_tokens(rows: Rollouts) -> Rollouts:
    """Converts the other arrays [N, T] of the given rows, with 0 on every token outside the mask."""
    dtype, inside = rows.rewards.dtype, make_masker(rows.mask)
    arrays = _token_arrays(rows)
    return replace_arrays(
        rows, {name: inside(_convert(name, array, rows.mask, dtype)) for name, array in arrays.items()}
    )


def drop_tokens(rows: Rollouts) -> Rollouts:
    """The rollouts without their arrays [N, T] other than the mask."""
    return replace_arrays(rows, dict.fromkeys(_token_arrays(rows)))


def slice_rows(rollouts: Rollouts, part: slice) -> Rollouts:
    """Those rows of the rollouts, as views."""
    if part == slice(None):
        return rollouts
    return map_arrays(lambda array: array if array.ndim == 0 else array[part, ...], rollouts)


def view_as_numpy(rows: Rollouts) -> Rollouts:
    """Torch tensors on a CPU as numpy arrays of the same memory, where there are several blocks of rows.

    Threads take whole blocks of numpy arrays, but share each operation on torch tensors, which is slower.
    Other rollouts are returned as they are.
    """
    given = list_arrays(rows).values()
    if not (is_torch_array(rows.mask) and has_several_blocks(rows.mask) and all(map(is_inspectable, given))):
        return rows
    return map_arrays(to_numpy, rows)


def _token_arrays(rows: Rollouts) -> dict[str, Array]:
    arrays = list_arrays(rows)
    return {name: array for name, array in arrays.items() if is_per_token(name, array, rows.mask)}


def _convert(name: str, array: Array, mask: Array, dtype: Any) -> Array:
    """In `dtype` if it holds floats, as integers that can count every token, or as bool."""
    xp = namespace(array)
    kinds = {"float": dtype, "integer": xp.__array_namespace_info__().default_dtypes()["indexing"]}
    return as_type(array, kinds.get(find_rule(name, array, mask).kind, xp.bool))
