"""Objectives that replace the clip by a smooth function of the ratio: SAPO's and VESPO's."""

from credit.backends.arrays import namespace, stop_gradient
from credit.log_ratios import bound_log_ratios
from credit.losses.inputs import LossInputs
from credit.losses.ratios import Ratio, compute_ratio
from credit.losses.token_losses import TokenLosses
from credit.types import Array


def sapo(
    inputs: LossInputs, *, ratio: Ratio, temperature_positive: float, temperature_negative: float
) -> TokenLosses:
    """SAPO's objective, a sigmoid of the ratio whose slope is 1 where the ratio is 1.

        l = -4 / tau sigmoid(tau (rho - 1)) A
        tau = temperature_positive  where A > 0,   temperature_negative  elsewhere

    The gradient of a token falls off smoothly as its ratio leaves 1, and the faster the larger tau is. The
    paper has tau = 1 and 1.05.

    Source: arXiv 2511.20347.
    """
    xp, advantages = namespace(inputs.log_probs), inputs.advantages
    rho = compute_ratio(inputs, ratio)
    tau = _choose_by_sign(advantages, temperature_positive, temperature_negative)
    # By exp, not by tanh, whose gradient 1 - tanh^2 cancels where the ratio is large.
    sigmoid = 1.0 / (1.0 + xp.exp(bound_log_ratios(-tau * (rho - 1.0))))
    return TokenLosses(-4.0 / tau * sigmoid * advantages, rho, {})


def vespo(
    inputs: LossInputs, *, kernel_positive: tuple[float, float], kernel_negative: tuple[float, float]
) -> TokenLosses:
    """VESPO's objective, which weighs a response by a kernel of the product of its tokens' ratios.

        W = exp(sum_t(log p - log p_old))
        l = -sg(W^k exp(lambda (1 - W))) A log p
        (k, lambda) = kernel_positive  where A > 0,   kernel_negative  elsewhere

    The weight is 1 where W is 1, largest at k / lambda, and falls to 0 on both sides. The paper's loss is the
    mean over tokens, and A that of a response; here each token has its own.

    Source: arXiv 2602.10693.
    """
    xp, advantages = namespace(inputs.log_probs), inputs.advantages
    moved = stop_gradient(inputs.log_probs - inputs.old_log_probs)
    log_product = bound_log_ratios(xp.sum(moved, axis=-1, keepdims=True))
    product = xp.exp(log_product) * xp.ones_like(advantages)
    k, rate = (
        _choose_by_sign(advantages, of_positive, of_negative)
        for of_positive, of_negative in zip(kernel_positive, kernel_negative, strict=True)
    )
    weight = xp.exp(bound_log_ratios(rate + k * log_product - rate * product))
    return TokenLosses(-weight * advantages * inputs.log_probs, product, {})


def _choose_by_sign(advantages: Array, positive: float, other: float) -> Array:
    xp = namespace(advantages)
    chosen = xp.full_like(advantages, positive), xp.full_like(advantages, other)
    return xp.where(advantages > 0.0, *chosen)
