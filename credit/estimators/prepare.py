"""Rollouts as estimators see them: checked, detached, floating, 0 where no token is."""

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
from credit.types import TOKEN_FIELDS, Array, Rollouts


def prepare_rollouts(name: str, rollouts: Rollouts, needs: tuple[str, ...]) -> Rollouts:
    """Rollouts for both halves of an estimator.

    Raises:
        ValueError: one of the needs is None, or shapes, devices, libraries or (where looking is free)
            group ids are wrong.
    """
    return prepare_tokens(prepare_rows(name, rollouts, needs))


def prepare_rows(name: str, rollouts: Rollouts, needs: tuple[str, ...]) -> Rollouts:
    """The half of `prepare` that every row has a part in; what is [N, T] is left but for the mask."""
    validation.check_rollout_shapes(rollouts)
    validation.check_needs(name, needs, rollouts)
    validation.check_group_ids(rollouts.groups)
    validation.check_valid_rewards(rollouts)
    rollouts = Rollouts(*(None if field is None else stop_gradient(field) for field in rollouts))
    xp = namespace(rollouts.rewards)
    dtype = xp.float64 if rollouts.rewards.dtype == xp.float64 else xp.float32

    def number(array: Array | None) -> Array | None:
        return None if array is None else as_type(array, dtype)

    rewards = number(rollouts.rewards)
    finite = xp.isfinite(rewards)
    if finite.ndim == 2:
        finite = xp.all(finite, axis=1)
    known = is_in_range(rollouts.groups, rollouts.groups.shape[0])
    valid = (finite if rollouts.valid is None else as_type(rollouts.valid, xp.bool)) & known
    groups, mask = _as_index_type(rollouts.groups), as_type(rollouts.mask, xp.bool)
    return rollouts._replace(
        rewards=rewards,
        groups=xp.where(known, groups, xp.zeros_like(groups)),
        mask=mask if is_inspectable(valid) and bool(xp.all(valid)) else mask & valid[:, None],
        valid=valid,
        baseline_rewards=number(rollouts.baseline_rewards),
        progress=number(rollouts.progress),
    )


def prepare_tokens(rows: Rollouts) -> Rollouts:
    """The other half, of as many rows as are given: zeros on every token outside the mask.

    So that no estimator computes with what lies there.
    """
    dtype, inside = rows.rewards.dtype, make_masker(rows.mask)

    def convert(name: str, array: Array) -> Array:
        return inside(_as_index_type(array) if name == "turns" else as_type(array, dtype))

    fields = {name: getattr(rows, name) for name in TOKEN_FIELDS}
    return rows._replace(
        **{name: convert(name, array) for name, array in fields.items() if array is not None}
    )


def slice_rows(rollouts: Rollouts, part: slice) -> Rollouts:
    """Those rows of rollouts, as views."""
    if part == slice(None):
        return rollouts
    return Rollouts(*(f if f is None or f.ndim == 0 else f[part, ...] for f in rollouts))


def view_as_numpy(rows: Rollouts) -> Rollouts:
    """Torch tensors on a CPU as numpy's arrays of the same memory, where there are several blocks of rows.

    For threads of numpy share blocks, and torch's share operations. Other rollouts are given back.
    """
    given = [field for field in rows if field is not None]
    if not (is_torch_array(rows.mask) and has_several_blocks(rows.mask) and all(map(is_inspectable, given))):
        return rows
    return Rollouts(*(None if field is None else to_numpy(field) for field in rows))


def _as_index_type(array: Array) -> Array:
    """Wide enough for an id of every token."""
    return as_type(array, namespace(array).__array_namespace_info__().default_dtypes()["indexing"])
