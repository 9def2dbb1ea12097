# mypy: disable-error-code="no-untyped-call"
"""Pallas for TPUs: blocks of rows and vocabulary stream through VMEM, the state stays there."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from credit.backends import array_api
from credit.backends.vocab import state

Array = Any

ROWS = 8  # a float32 tile of a TPU is 8 x 128
COLUMNS = 2048
LANES = 128  # each number of the state is spread over a row of lanes


def token_statistics(
    policy_logits: Array, reference_logits: Array, token_ids: Array, half: Array, *, interpret: bool = False
) -> tuple[Array, Array, Array, Array]:
    """log p, log q, H and d [...] of logits [..., V] in at most 32 bits; half is 1 / 2T [...]."""
    size = policy_logits.shape[-1]
    x, y = (logits.reshape(-1, size) for logits in (policy_logits, reference_logits))
    ids, halves = token_ids.reshape(-1, 1), half.reshape(-1, 1)
    rows = x.shape[0]
    if not rows:
        return half, half, half, half
    logits = pl.BlockSpec((ROWS, COLUMNS), lambda i, j: (i, j))
    fields = pl.pallas_call(
        partial(_kernel, size=size),
        grid=(pl.cdiv(rows, ROWS), pl.cdiv(size, COLUMNS)),
        in_specs=[logits, logits, pl.BlockSpec((ROWS, 1), lambda i, j: (i, 0))],
        out_specs=pl.BlockSpec((8, ROWS, LANES), lambda i, j: (0, i, 0)),
        out_shape=jax.ShapeDtypeStruct((8, rows, LANES), jnp.float32),
        scratch_shapes=[pltpu.VMEM((8, ROWS, LANES), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
    )(x, y, halves)
    pair = _read_state(fields)
    # A gather costs the kernel more than one more read of a single entry.
    taken = [state.select_logits(side, ids).astype(jnp.float32) for side in (x, y)]
    policy, reference = (
        mass._replace(selected=value)
        for mass, value in zip((pair.policy, pair.reference), taken, strict=True)
    )
    results = array_api.read_statistics(pair._replace(policy=policy, reference=reference), halves)
    log_p, log_q, entropy, deviation = (result.reshape(token_ids.shape) for result in results)
    return log_p, log_q, entropy, deviation


def _kernel(x_ref: Any, y_ref: Any, half_ref: Any, out_ref: Any, state_ref: Any, *, size: int) -> None:
    block, half = pl.program_id(1), half_ref[...]
    column = block * COLUMNS + lax.broadcasted_iota(jnp.int32, x_ref.shape, 1)
    x, y = (jnp.where(column < size, ref[...].astype(jnp.float32), -jnp.inf) for ref in (x_ref, y_ref))
    part = state.pair_state(x, y, None, half)

    @pl.when(block == 0)
    def _() -> None:
        _write_state(state_ref, part)

    @pl.when(block > 0)
    def _() -> None:
        _write_state(state_ref, state.merge_pair(_read_state(state_ref), part, half))

    @pl.when(block == pl.num_programs(1) - 1)
    def _() -> None:
        out_ref[...] = state_ref[...]


def _write_state(ref: Any, pair: state.Pair) -> None:
    fields = *pair.policy, pair.moment, *pair.reference, pair.deviation
    for k, field in enumerate(fields):
        ref[k] = jnp.broadcast_to(field, ref.shape[1:])


def _read_state(ref: Any) -> state.Pair:
    fields = [ref[k][:, :1] for k in range(8)]
    return state.Pair(state.Mass(*fields[:3]), fields[3], state.Mass(*fields[4:7]), fields[7])
