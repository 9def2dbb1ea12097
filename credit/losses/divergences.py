"""Objectives that hold a token back by the divergence of its probabilities, not by their ratio: DPPO's."""

from credit.backends.arrays import namespace, stop_gradient
from credit.losses.inputs import LossInputs
from credit.losses.ratios import compute_ratio
from credit.losses.token_losses import TokenLosses
from credit.types import Array

LEAST_REST = 1e-8
"""Added to the probability of all other tokens, which rounds to 0 where the sampled one is certain."""


def dppo_tv(inputs: LossInputs, *, clip_low: float, clip_high: float, ratio_cap: float | None) -> TokenLosses:
    """DPPO's objective with the binary total variation, that of "the sampled token" against "another one".

        D = |p - p_old|
        l = 0  where A > 0, p > p_old, D > clip_high,   or A < 0, p < p_old, D > clip_low
        l = -sg(min(rho, ratio_cap)) A p / sg(p)  elsewhere

    clip_low and clip_high bound D, not the ratio. The paper takes log p_old from the sampler itself: pass
    the rollout's log-probs as old_log_probs for that. The authors' script has thresholds of 0.15.

    Source: arXiv 2602.04879.
    """
    new, old = _clean_log_probs(inputs)
    xp = namespace(new)
    divergence = xp.abs(xp.exp(new) - xp.exp(old))
    return _hold_back(inputs, divergence, clip_low, clip_high, ratio_cap)


def dppo_kl(inputs: LossInputs, *, clip_low: float, clip_high: float, ratio_cap: float | None) -> TokenLosses:
    """DPPO's objective with the binary KL divergence; the rest is as in `dppo_tv`.

        D = p_old log(p_old / p) + (1 - p_old) log((1 - p_old) / (1 - p))

    The authors' script has thresholds of 0.05. Source: arXiv 2602.04879.
    """
    new, old = _clean_log_probs(inputs)
    xp = namespace(new)
    rest, old_rest = (-xp.expm1(log_probs) + LEAST_REST for log_probs in (new, old))
    divergence = xp.exp(old) * (old - new) + old_rest * xp.log(old_rest / rest)
    return _hold_back(inputs, divergence, clip_low, clip_high, ratio_cap)


def _clean_log_probs(inputs: LossInputs) -> tuple[Array, Array]:
    """log p and log p_old without gradient and at most 0, so that they are those of probabilities."""
    xp = namespace(inputs.log_probs)
    new, old = (stop_gradient(xp.clip(log_probs, max=0.0)) for log_probs in inputs[:2])
    return new, old


def _hold_back(
    inputs: LossInputs, divergence: Array, clip_low: float, clip_high: float, ratio_cap: float | None
) -> TokenLosses:
    xp, new, advantages = namespace(divergence), inputs.log_probs, inputs.advantages
    moved = stop_gradient(new - inputs.old_log_probs)
    high = (advantages > 0.0) & (moved > 0.0) & (divergence > clip_high)
    low = (advantages < 0.0) & (moved < 0.0) & (divergence > clip_low)
    rho = stop_gradient(compute_ratio(inputs, "token"))
    shares = {"clip_fraction_low": low, "clip_fraction_high": high}
    weight = rho
    if ratio_cap is not None:
        shares["clip_fraction_cap"] = (rho > ratio_cap) & ~(low | high)
        weight = xp.clip(rho, max=ratio_cap)
    weight = xp.where(low | high, 0.0, weight)
    return TokenLosses(-weight * advantages * xp.exp(new - stop_gradient(new)), rho, shares)
