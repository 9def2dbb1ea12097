"""The objective that replaces the clip by a smooth gate: SAPO's."""

from credit.backends.arrays import namespace
from credit.log_ratios import bound_log_ratios
from credit.losses.inputs import LossInputs
from credit.losses.ratios import Ratio, compute_ratio
from credit.losses.token_losses import TokenLosses


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
    tau = xp.where(
        advantages > 0.0,
        xp.full_like(advantages, temperature_positive),
        xp.full_like(advantages, temperature_negative),
    )
    # By exp, not by tanh, whose gradient 1 - tanh^2 cancels where the ratio is large.
    sigmoid = 1.0 / (1.0 + xp.exp(bound_log_ratios(-tau * (rho - 1.0))))
    return TokenLosses(-4.0 / tau * sigmoid * advantages, rho, {})
