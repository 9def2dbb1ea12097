"""Importance ratios p / p_old, of a token or of its response."""

from typing import Literal

from credit import tokens
from credit.backends.arrays import namespace, stop_gradient
from credit.log_ratios import bound_log_ratios
from credit.losses.inputs import LossInputs
from credit.types import Array

Ratio = Literal["token", "sequence"]


def compute_ratio(inputs: LossInputs, kind: Ratio) -> Array:
    """rho [N, T]: of a token, or the value of its response's with the gradient of its own (GSPO-token)."""
    log_ratios = inputs.log_probs - inputs.old_log_probs
    if kind == "token":
        return namespace(log_ratios).exp(bound_log_ratios(log_ratios))
    return geometric_mean(log_ratios, inputs.mask)


def geometric_mean(log_ratios: Array, mask: Array) -> Array:
    """exp of the mean over a response's tokens, for each token [N, T], whose gradient is its own.

        sg(exp(mean_t(x))) exp(x) / sg(exp(x))

    Where all tokens of a response have the same factor, as their A, the sum of these gradients over the
    response, divided by its length, is the gradient of exp(mean_t(x)) times that factor.
    """
    xp = namespace(log_ratios)
    length = xp.clip(tokens.length(mask, log_ratios.dtype), min=1.0)
    mean = xp.sum(xp.where(mask, log_ratios, 0.0), axis=-1, keepdims=True) / length
    return xp.exp(bound_log_ratios(stop_gradient(mean) + (log_ratios - stop_gradient(log_ratios))))


def summarize_ratio(name: str, ratio: Array, mask: Array) -> dict[str, Array]:
    """The metrics of a ratio over the tokens of the mask: mean, smallest and largest."""
    return {
        f"{name}_mean": tokens.mean(ratio, mask),
        f"{name}_min": tokens.extreme(ratio, mask, largest=False),
        f"{name}_max": tokens.extreme(ratio, mask, largest=True),
    }
