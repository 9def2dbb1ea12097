"""Objectives that treat a few tokens apart, whose log-prob varies with their advantage: Clip-Cov and KL-Cov.

Their covariance is (A - mean(A)) (log p - mean(log p)), over the tokens of the batch that the loss is called
with. Where that is one part of several (gradient accumulation, data parallelism), means, number and choice
are the part's, as in verl, so that the losses of the parts do not add up to that of the whole.
"""

from credit import tokens
from credit.backends.arrays import namespace, stop_gradient
from credit.losses.clipped import clip
from credit.losses.inputs import LossInputs
from credit.losses.ratios import compute_ratio
from credit.losses.token_losses import TokenLosses
from credit.types import Array


def clip_cov(
    inputs: LossInputs,
    *,
    clip_low: float,
    clip_high: float,
    covariance_fraction: float,
    covariance_low: float,
    covariance_high: float,
) -> TokenLosses:
    """Clip-Cov: PPO's clip, and no loss for a few tokens of high covariance.

        C = (A - mean(A)) (log p - mean(log p))
        l = 0  for max(floor(covariance_fraction n), 1) of the tokens that no clip holds and whose C lies
               between covariance_low and covariance_high, with n the number of tokens
        l = max(-rho A, -clip(rho, 1 - clip_low, 1 + clip_high) A)  elsewhere

    The paper draws those tokens at random. Here the candidates, in the order of the batch, are cut into as
    many runs of equal length as tokens are wanted, and each run gives its middle one. Like a random draw,
    that depends on no token's covariance, ratio or advantage beyond being a candidate, and every part of
    the batch gives its share. Unlike one, it is the same in every process and on every library, needs no
    state that a checkpoint would have to hold, and does not vary the loss of one batch.

    Source: arXiv 2505.22617.
    """
    plain = clip(inputs, ratio="token", clip_low=clip_low, clip_high=clip_high, dual_clip=None)
    held = plain.shares["clip_fraction_low"] | plain.shares["clip_fraction_high"]
    covariance = compute_covariance(inputs)
    between = (covariance > covariance_low) & (covariance < covariance_high)
    count = _count_tokens(inputs.mask, covariance_fraction)
    chosen = pick_evenly(between & inputs.mask & ~held, count)
    losses = namespace(plain.losses).where(chosen, 0.0, plain.losses)
    return TokenLosses(losses, plain.ratio, {**plain.shares, "clip_fraction_covariance": chosen})


def kl_cov(inputs: LossInputs, *, covariance_fraction: float, covariance_penalty: float) -> TokenLosses:
    """KL-Cov: no clip, and a penalty on the tokens of largest covariance.

        C = (A - mean(A)) (log p - mean(log p))
        l = -rho A + covariance_penalty |log p - log p_old|
            for the max(floor(covariance_fraction n), 1) tokens of largest C, with n the number of tokens
        l = -rho A  elsewhere

    Of equal covariances the first in the batch is taken. The authors' script for a 7B model has a fraction of
    2e-3.

    Source: arXiv 2505.22617, whose penalty is the KL divergence; its authors' code has this estimate of it.
    """
    xp, rho = namespace(inputs.log_probs), compute_ratio(inputs, "token")
    count = _count_tokens(inputs.mask, covariance_fraction)
    chosen = pick_largest(compute_covariance(inputs), inputs.mask, count)
    penalty = covariance_penalty * xp.abs(inputs.log_probs - inputs.old_log_probs)
    losses = -rho * inputs.advantages + xp.where(chosen, penalty, 0.0)
    return TokenLosses(losses, rho, {"penalized_fraction": chosen})


def compute_covariance(inputs: LossInputs) -> Array:
    """(A - mean(A)) (log p - mean(log p)) [N, T], means over the mask's tokens; without gradient."""
    new, advantages = stop_gradient(inputs.log_probs), inputs.advantages
    of_advantages, of_log_probs = (tokens.mean(values, inputs.mask) for values in (advantages, new))
    return (advantages - of_advantages) * (new - of_log_probs)


def pick_evenly(candidates: Array, count: Array) -> Array:
    """`count` of the candidates [N, T], or all if they are fewer: the middle of each of as many runs."""
    xp = namespace(candidates)
    flat = xp.astype(xp.reshape(candidates, (-1,)), count.dtype)
    total = xp.sum(flat, dtype=count.dtype)
    count = xp.clip(xp.minimum(count, total), min=1)
    # The first `longer` runs have one candidate more. Products of place and count would leave int32.
    length, longer = total // count, total % count
    place, border = xp.cumulative_sum(flat, dtype=count.dtype) - 1, longer * (length + 1)
    first = place % (length + 1) == (length + 1) // 2
    later = (place - border) % xp.clip(length, min=1) == length // 2
    return candidates & xp.reshape(xp.where(place < border, first, later), candidates.shape)


def pick_largest(values: Array, mask: Array, count: Array) -> Array:
    """The `count` tokens of the mask with the largest values [N, T], the first of equal ones; bool."""
    xp = namespace(values)
    falling = xp.reshape(xp.where(mask, -values, float("inf")), (-1,))
    rank = xp.argsort(xp.argsort(falling, stable=True), stable=True)
    return mask & xp.reshape(rank < xp.astype(count, rank.dtype), mask.shape)


def _count_tokens(mask: Array, fraction: float) -> Array:
    """max(floor(fraction n), 1) for the n tokens of the mask, as a 0-d integer."""
    xp = namespace(mask)
    kind = xp.__array_namespace_info__().default_dtypes()["indexing"]
    count = fraction * xp.sum(xp.astype(mask, xp.float32))
    return xp.clip(xp.astype(xp.floor(count), kind), min=1)
