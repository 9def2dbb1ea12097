"""Objectives that clip the importance ratio: PPO's and CISPO's."""

from credit.backends.arrays import namespace, stop_gradient
from credit.losses.inputs import LossInputs
from credit.losses.ratios import Ratio, compute_ratio
from credit.losses.token_losses import TokenLosses


def clip(
    inputs: LossInputs, *, ratio: Ratio, clip_low: float, clip_high: float, dual_clip: float | None
) -> TokenLosses:
    """PPO's clipped objective, with dual clip where that is set.

        l = max(-rho A, -clip(rho, 1 - clip_low, 1 + clip_high) A)
        l = min(l, -dual_clip A)  where A < 0

    Sources: arXiv 1707.06347, dual clip 1912.09729, clip-higher 2503.14476, GSPO 2507.18071.
    """
    xp, rho, advantages = namespace(inputs.log_probs), compute_ratio(inputs, ratio), inputs.advantages
    plain = -rho * advantages
    clipped = -xp.clip(rho, min=1.0 - clip_low, max=1.0 + clip_high) * advantages
    cut = clipped > plain
    losses = xp.where(cut, clipped, plain)
    shares = {
        "clip_fraction_low": cut & (advantages < 0.0),
        "clip_fraction_high": cut & (advantages > 0.0),
    }
    if dual_clip is not None:
        bound = -dual_clip * advantages
        capped = (advantages < 0.0) & (losses > bound)
        losses = xp.where(capped, bound, losses)
        shares["clip_fraction_dual"] = capped
    return TokenLosses(losses, rho, shares)


def cispo(inputs: LossInputs, *, ratio: Ratio, clip_low: float, clip_high: float) -> TokenLosses:
    """CISPO's objective, which clips the ratio but keeps the gradient of every token.

        l = -sg(clip(rho, 1 - clip_low, 1 + clip_high)) A log p

    Source: arXiv 2506.13585.
    """
    xp, rho = namespace(inputs.log_probs), compute_ratio(inputs, ratio)
    bounded = stop_gradient(xp.clip(rho, min=1.0 - clip_low, max=1.0 + clip_high))
    shares = {"clip_fraction_low": rho < 1.0 - clip_low, "clip_fraction_high": rho > 1.0 + clip_high}
    return TokenLosses(-bounded * inputs.advantages * inputs.log_probs, rho, shares)
