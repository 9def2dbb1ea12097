"""Objectives that clip the importance ratio: PPO's, CISPO's and GMPO's."""

from credit.backends.arrays import namespace, stop_gradient
from credit.losses.inputs import LossInputs
from credit.losses.ratios import Ratio, compute_ratio, geometric_mean
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


def gmpo(inputs: LossInputs, *, clip_low: float, clip_high: float) -> TokenLosses:
    """GMPO's objective: the geometric mean over a response of ratios that are clipped token by token.

        x = log p - log p_old
        c = min(x, clip_high)  where A > 0,   max(x, -clip_low)  where A < 0,   0  where A = 0
        rho = sg(exp(mean_t(c))) exp(c) / sg(exp(c))
        l = -rho A

    The clips are in nats, of the log-ratio: the paper's range is exp(-0.4) to exp(0.4). The paper has one
    advantage for all tokens of a response, and with aggregation="sequence_mean" its loss and its gradient
    are these. Where each token has its own, the value is the paper's at their mean, and the gradient of each
    token follows its own advantage, as GSPO-token's does, where the mean would cancel token weights.

    Source: arXiv 2507.20673.
    """
    xp, advantages = namespace(inputs.log_probs), inputs.advantages
    x = inputs.log_probs - inputs.old_log_probs
    high = (advantages > 0.0) & (x > clip_high)
    low = (advantages < 0.0) & (x < -clip_low)
    held = xp.where(high, clip_high, xp.where(low, -clip_low, x))
    held = xp.where(advantages == 0.0, 0.0, held)
    rho = geometric_mean(held, inputs.mask)
    return TokenLosses(-rho * advantages, rho, {"clip_fraction_low": low, "clip_fraction_high": high})
