# mypy: disable-error-code="no-untyped-call"
"""Pallas for TPUs: blocks of rows and vocabulary stream through VMEM, the state stays there."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from credit.backends import array_api, limits
from credit.backends.vocab import by_name, state

Array = Any


def token_statistics(
    policy_logits: Array,
    reference_logits: Array,
    token_ids: Array,
    half: Array,
    also: Sequence[str] = (),
    *,
    interpret: bool = False,
) -> tuple[Array, ...]:
    """log p, log q, H, d and those of `also` [...] of logits [..., V] in at most 32 bits; half is 1 / 2T."""
    size = policy_logits.shape[-1]
    x, y = (logits.reshape(-1, size) for logits in (policy_logits, reference_logits))
    ids, halves = token_ids.reshape(-1, 1), half.reshape(-1, 1)
    rows = x.shape[0]
    if not rows:
        return (half,) * (4 + len(also))
    block, columns, lanes = limits.PALLAS_ROWS, limits.PALLAS_COLUMNS, limits.PALLAS_LANES
    count = 2 * state.FIELDS + len(by_name.stored(also))
    logits = pl.BlockSpec((block, columns), lambda i, j: (i, j))
    fields = pl.pallas_call(
        partial(_kernel, size=size, also=also),
        grid=(pl.cdiv(rows, block), pl.cdiv(size, columns)),
        in_specs=[logits, logits, pl.BlockSpec((block, 1), lambda i, j: (i, 0))],
        out_specs=pl.BlockSpec((count, block, lanes), lambda i, j: (0, i, 0)),
        out_shape=jax.ShapeDtypeStruct((count, rows, lanes), jnp.float32),
        scratch_shapes=[pltpu.VMEM((count, block, lanes), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
    )(x, y, halves)
    pair = _read_state(fields, also)
    # A gather costs the kernel more than one more read of a single entry.
    taken = [state.select_logits(side, ids).astype(jnp.float32) for side in (x, y)]
    policy, reference = (
        mass._replace(selected=value)
        for mass, value in zip((pair.policy, pair.reference), taken, strict=True)
    )
    results = array_api.read_statistics(pair._replace(policy=policy, reference=reference), halves, also)
    return tuple(result.reshape(token_ids.shape) for result in results)


def _kernel(
    x_ref: Any, y_ref: Any, half_ref: Any, out_ref: Any, state_ref: Any, *, size: int, also: Sequence[str]
) -> None:
    block, half = pl.program_id(1), half_ref[...]
    column = block * x_ref.shape[1] + lax.broadcasted_iota(jnp.int32, x_ref.shape, 1)
    x, y = (jnp.where(column < size, ref[...].astype(jnp.float32), -jnp.inf) for ref in (x_ref, y_ref))
    part = state.pair_state(x, y, None, half, also)

    @pl.when(block == 0)
    def _() -> None:
        _write_state(state_ref, part)

    @pl.when(block > 0)
    def _() -> None:
        _write_state(state_ref, state.merge_pair(_read_state(state_ref, also), part, half))

    @pl.when(block == pl.num_programs(1) - 1)
    def _() -> None:
        out_ref[...] = state_ref[...]


def _write_state(ref: Any, pair: state.Pair) -> None:
    for k, field in enumerate(state.pack(pair)):
        ref[k] = jnp.broadcast_to(field, ref.shape[1:])


def _read_state(ref: Any, also: Sequence[str]) -> state.Pair:
    return state.unpack([ref[k][:, :1] for k in range(ref.shape[0])], also)
