"""JAX: the gradient of what a softmax over the vocabulary gives, in its logits."""

from typing import Any

import jax.numpy as jnp
from jax import lax

Array = Any


def grad_logits(
    logits: Array,
    token_ids: Array,
    half: Array,
    saved: tuple[Array, Array, Array],
    of_selected: Array,
    of_mass: Array,
    of_entropy: Array,
) -> Array:
    """(of_selected 1[v = a] + of_mass p - of_entropy p (ln p + H)) / T for logits [..., V].

    half is 1 / 2T, saved are peak, ln A and H; these and the gradients of the selected logit, of ln sum
    exp and of H are [..., 1], token_ids [...].
    """
    peak, log_total, entropy = saved
    log_p = 2.0 * half * (logits.astype(half.dtype) - peak) - log_total
    p = jnp.exp(log_p)
    # p ln p is 0 where p is.
    entropy_slope = p * (jnp.where(p > 0.0, log_p, 0.0) + entropy)
    columns = lax.broadcasted_iota(token_ids.dtype, logits.shape, logits.ndim - 1)
    hit = (columns == token_ids[..., None]).astype(p.dtype)
    slope = of_selected * hit + of_mass * p - of_entropy * entropy_slope
    return (2.0 * half * slope).astype(logits.dtype)
