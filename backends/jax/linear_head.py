"""JAX: log-probs from hidden states with their own gradient, in loops over vocabulary chunks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from credit.backends.jax import chunk_loop
from credit.backends.vocab import gradients, state, tiles

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

    policy, *_ = chunk_loop.fold_chunks(part, head.shape[0], chunk, halves)
    residuals = hidden, head, bias, ids, half, policy.peak, jnp.log(policy.total)
    return state.log_prob(policy, halves), residuals


def _backward(settings: Settings, residuals: Any, grad_output: Array) -> tuple[Array | None, ...]:
    scale, soft_cap, chunk = settings
    hidden, head, bias, ids, half, peak, log_total = residuals
    dtype = half.dtype
    tile = tiles.from_hidden(hidden, head, bias, scale, soft_cap, dtype, slice_entries, project)

    def grad_projection(start: Any, width: int) -> Array:
        """The gradient in hidden head^T + bias [N, width]: back through soft cap and scale."""
        logits = tile(start, width)
        per_row = (ids - start)[:, None], half[:, None], peak, log_total, grad_output[:, None]
        grad = gradients.grad_log_prob(logits, *per_row)
        return scale * (grad if soft_cap is None else grad * (1.0 - (logits / soft_cap) ** 2))

    def add(start: Any, width: int, carry: Any) -> Any:
        grad_hidden, grad_head, grad_bias = carry
        grad = grad_projection(start, width)
        weight = slice_entries(head, start, width, 0)
        low = grad.astype(head.dtype) if head.dtype == hidden.dtype else grad
        grad_weight = project(low.T, hidden.astype(low.dtype).T, dtype).astype(head.dtype)
        grad_head = lax.dynamic_update_slice_in_dim(grad_head, grad_weight, start, 0)
        grad_hidden = grad_hidden + project(low, weight.astype(low.dtype).T, dtype)
        if grad_bias is not None:
            grad_offset = jnp.sum(grad, axis=0).astype(grad_bias.dtype)
            grad_bias = lax.dynamic_update_slice_in_dim(grad_bias, grad_offset, start, 0)
        return grad_hidden, grad_head, grad_bias

    zeros = (
        jnp.zeros(hidden.shape, dtype),
        jnp.zeros_like(head),
        None if bias is None else jnp.zeros_like(bias),
    )
    grad_hidden, grad_head, grad_bias = chunk_loop.loop_over_chunks(add, zeros, head.shape[0], chunk)
    return grad_hidden.astype(hidden.dtype), grad_head, grad_bias, None, None


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
    """See `protocol.Backend`."""
    dtype = tiles.computing_dtype(hidden, head)
    half = tiles.half_inverse_temperature(jnp.asarray(temperature, dtype), token_ids, dtype).reshape(-1)
    chunk = min(head.shape[0], chunk or chunk_loop.chunk_for_rows(token_ids.size))
    flat = hidden.reshape(-1, hidden.shape[-1]), head, bias, token_ids.reshape(-1), half
    return selected_log_probs(*flat, (scale, soft_cap, chunk)).reshape(token_ids.shape)
