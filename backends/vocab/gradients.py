"""The gradients of log p(a), of a part's log-mass and of its entropy in the part's logits.

Symbols are those of `state.py`. Residuals and gradients per token are [..., 1], `half` is 1 / 2T [..., 1].
"""

from typing import Any

from credit.backends.arrays import namespace, one_hot

Array = Any


def grad_log_prob(
    x: Array, token_ids: Array, half: Array, peak: Array, log_total: Array, grad_output: Array
) -> Array:
    """grad_output d log p(a) / dx_v = grad_output (1[v = a] - p_v) / T for a part's logits x [..., V'].

    peak and log_total (ln A) are of the whole vocabulary; ids count from the part's first entry.
    """
    xp = namespace(x)
    p = xp.exp(_log_softmax(x, half, peak, log_total))
    return grad_output * (2.0 * half) * (one_hot(token_ids, p) - p)


def grad_logits(
    x: Array,
    token_ids: Array,
    half: Array,
    residuals: tuple[Array, Array, Array],
    grad_selected: Array,
    grad_log_mass: Array,
    grad_entropy: Array,
) -> Array:
    """(grad_selected 1[v = a] + grad_log_mass p - grad_entropy p (ln p + H)) / T for logits x [..., V'].

    These are the gradients of x_a / T, of ln sum exp(x / T), and of H; log p(a) is the difference of the
    first two, so its gradient enters them with opposite signs. The residuals are peak, ln A and H; ids count
    from the part's first entry.
    """
    xp = namespace(x)
    peak, log_total, entropy = residuals
    log_p = _log_softmax(x, half, peak, log_total)
    p = xp.exp(log_p)
    # p ln p is 0 where p is.
    entropy_term = p * (xp.where(p > 0.0, log_p, 0.0) + entropy)
    hit = one_hot(token_ids, p)
    return 2.0 * half * (grad_selected * hit + grad_log_mass * p - grad_entropy * entropy_term)


def _log_softmax(x: Array, half: Array, peak: Array, log_total: Array) -> Array:
    return 2.0 * half * (x - peak) - log_total
