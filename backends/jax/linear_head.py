"""JAX: log-probs from hidden states with their own gradient, in loops over vocabulary chunks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from credit.backends.jax import chunk_loop
from credit.backends.vocab import state, tiles

Array = Any
Settings = tuple[float, float | None, int]


def slice_entries(array: Array, start: Any, width: int, axis: int) -> Array:
    """As `tiles.slice_entries`, for a traced start."""
    return lax.dynamic_slice_in_dim(array, start, width, axis)


def project(hidden: Array, head: Array, dtype: Any) -> Array:
    """hidden [..., D] times head [W, D], summed in `dtype`."""
    # Without this, accelerators multiply float32 in fewer bits.
    precision = None if hidden.dtype in (jnp.bfloat16, jnp.float16) else lax.Precision.HIGHEST
    contract = (((hidden.ndim - 1,), (1,)), ((), ()))
    return lax.dot_general(hidden, head, contract, precision, preferred_element_type=dtype)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def selected_log_probs(
    hidden: Array, head: Array, bias: Array | None, ids: Array, half: Array, settings: Settings
) -> Array:
    """log p [N] of hidden [N, D], head [V, D], bias [V]; settings are scale, soft cap and chunk."""
    return _forward(hidden, head, bias, ids, half, settings)[0]


def _forward(
    hidden: Array, head: Array, bias: Array | None, ids: Array, half: Array, settings: Settings
) -> tuple[Array, Any]:
    scale, soft_cap, chunk = settings
    tile = tiles.from_hidden(hidden, head, bias, scale, soft_cap, half.dtype, slice_entries, project)
    rows, halves = ids[:, None], half[:, None]

    def part(start: Any, width: int) -> state.Single:
        return state.single_state(tile(start, width), rows - start, halves)

    whole, rest = divmod(head.shape[0], chunk)

    def body(i: Array, carry: state.Single) -> state.Single:
        return state.merge_single(carry, part(i * chunk, chunk), halves)

    final = lax.fori_loop(1, whole, body, part(0, chunk))
    if rest:
        final = state.merge_single(final, part(whole * chunk, rest), halves)
    log_total = jnp.log(final.policy.total)
    return state.log_prob(final.policy, halves), (hidden, head, bias, ids, half, final.policy.peak, log_total)


def _backward(settings: Settings, residuals: Any, given: Array) -> tuple[Array | None, ...]:
    scale, soft_cap, chunk = settings
    hidden, head, bias, ids, half, peak, log_total = residuals
    dtype = half.dtype
    factor = 2.0 * half[:, None]
    tile = tiles.from_hidden(hidden, head, bias, scale, soft_cap, dtype, slice_entries, project)

    def slopes(start: Any, width: int) -> Array:
        """The gradient in scale-free, uncapped logits [N, width]."""
        logits = tile(start, width)
        p = jnp.exp(factor * (logits - peak) - log_total)
        hit = lax.broadcasted_iota(ids.dtype, logits.shape, 1) == (ids - start)[:, None]
        slope = given[:, None] * factor * (hit.astype(dtype) - p)
        return scale * (slope if soft_cap is None else slope * (1.0 - (logits / soft_cap) ** 2))

    def add(start: Any, width: int, carry: Any) -> Any:
        of_hidden, of_head, of_bias = carry
        slope = slopes(start, width)
        weight = slice_entries(head, start, width, 0)
        low = slope.astype(head.dtype) if head.dtype == hidden.dtype else slope
        of_weight = project(low.T, hidden.astype(low.dtype).T, dtype).astype(head.dtype)
        of_head = lax.dynamic_update_slice_in_dim(of_head, of_weight, start, 0)
        of_hidden = of_hidden + project(low, weight.astype(low.dtype).T, dtype)
        if of_bias is not None:
            offset = jnp.sum(slope, axis=0).astype(of_bias.dtype)
            of_bias = lax.dynamic_update_slice_in_dim(of_bias, offset, start, 0)
        return of_hidden, of_head, of_bias

    whole, rest = divmod(head.shape[0], chunk)
    carry = (
        jnp.zeros(hidden.shape, dtype),
        jnp.zeros_like(head),
        None if bias is None else jnp.zeros_like(bias),
    )
    carry = lax.fori_loop(0, whole, lambda i, c: add(i * chunk, chunk, c), carry)
    if rest:
        carry = add(whole * chunk, rest, carry)
    of_hidden, of_head, of_bias = carry
    return of_hidden.astype(hidden.dtype), of_head, of_bias, None, None


selected_log_probs.defvjp(_forward, _backward)


@partial(jax.jit, static_argnames=("scale", "soft_cap", "chunk"))
def selected_log_probs_from_hidden(
    hidden: Array,
    head: Array,
    token_ids: Array,
    temperature: Array | float,
    *,
    bias: Array | None,
    scale: float,
    soft_cap: float | None,
    chunk: int | None,
) -> Array:
    """See `array_api.selected_log_probs_from_hidden`; differentiable in hidden, head and bias."""
    dtype = tiles.computing_dtype(hidden, head)
    half = tiles.half_inverse_temperature(jnp.asarray(temperature, dtype), token_ids, dtype).reshape(-1)
    chunk = min(head.shape[0], chunk or chunk_loop.chunk_for_rows(token_ids.size))
    flat = hidden.reshape(-1, hidden.shape[-1]), head, bias, token_ids.reshape(-1), half
    return selected_log_probs(*flat, (scale, soft_cap, chunk)).reshape(token_ids.shape)
