"""Credit where only log-probs of sampled tokens are known, by an estimator that says what it does not know.

DGPO's score is d h^kappa, of the deviation d of two distributions over the whole vocabulary and the entropy h
of one. A service that returns log-probs of tokens gives neither. They bound d, and no bound is called d here.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

import credit


class Response(NamedTuple):
    """What is known of one response of T positions; positions outside the mask are not read."""

    mask: Sequence[bool]
    log_probs: Sequence[float]
    """log p of the sampled tokens under the policy that sampled them, nats."""
    reference_log_probs: Sequence[float]
    """log q of the same tokens under the reference."""
    top: tuple[np.ndarray, np.ndarray] | None = None
    """log p and log q [T, K] of the same K tokens, the sampled one among them; -inf where there are fewer."""


class BoundedDeviation(credit.Redistributing):
    """DGPO without its entropy (kappa 0), and with a lower bound of the deviation as the score of a token.

    From the sampled token alone this bound is a signal of its own. It depends on the token that was drawn,
    while the deviation depends on the text before it alone, and it is small for a token that both models
    find unlikely.
    """

    name: Literal["bounded_deviation"] = "bounded_deviation"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("extra.deviation_lower", "extra.deviation_upper", *self.turn_fields)

    def score(self, rollouts: credit.Rollouts) -> Any:
        return rollouts.extra["deviation_lower"]

    def observed(self, rollouts: credit.Rollouts) -> dict[str, Any]:
        """Both bounds: what lies between them is what is not known."""
        return {name: rollouts.extra[name] for name in ("deviation_lower", "deviation_upper")}


def make_rollouts(
    rewards: Sequence[float], groups: Sequence[int], responses: Sequence[Response]
) -> credit.Rollouts:
    """The responses as arrays [N, T], with the bounds of the deviation in `extra`."""
    width = max(len(response.mask) for response in responses)
    shape = len(responses), width
    mask, log_probs, reference = np.zeros(shape, bool), np.zeros(shape), np.zeros(shape)
    lower, upper = np.zeros(shape), np.zeros(shape)
    for row, response in enumerate(responses):
        length = len(response.mask)
        mask[row, :length] = response.mask
        log_probs[row, :length] = response.log_probs
        reference[row, :length] = response.reference_log_probs
        # Of one token the lower bound is credit.binary_deviation.
        known = response.top or (log_probs[row, :length, None], reference[row, :length, None])
        lower[row, :length], upper[row, :length] = credit.top_k_deviation(*known)
    return credit.Rollouts(
        rewards=np.asarray(rewards, float),
        groups=np.asarray(groups),
        mask=mask,
        log_probs=log_probs,
        reference_log_probs=reference,
        turns=credit.tokens.turns(mask),
        extra={"deviation_lower": lower, "deviation_upper": upper},
    )


def bound_weights(rollouts: credit.Rollouts, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest weight [N, T] that each token can have under DGPO(kappa=0, tau=tau).

    A weight is smallest where its own deviation is at its lower bound and all others are at their upper one.
    """
    lower, upper = (
        np.where(rollouts.mask, np.exp((rollouts.extra[f"deviation_{bound}"] - 1) / tau), 0)
        for bound in ("lower", "upper")
    )
    length = rollouts.mask.sum(axis=1, keepdims=True)
    least = length * lower / np.maximum(lower + upper.sum(axis=1, keepdims=True) - upper, 1e-300)
    most = length * upper / np.maximum(upper + lower.sum(axis=1, keepdims=True) - lower, 1e-300)
    return least, most


def describe(
    rollouts: credit.Rollouts, result: credit.Credit, estimator: credit.Estimator
) -> dict[str, float]:
    """For the log: the bounds, what the weights do, and how much of the weights at this tau is not known."""
    found = {
        f"credit/{name}": float(result.metrics[name]) for name in ("weight_std", "effective_token_fraction")
    }
    for name, bound in rollouts.extra.items():
        found[f"credit/{name}"] = float(credit.tokens.mean(bound, rollouts.mask))
    tau = getattr(estimator, "tau", None)
    if isinstance(estimator, BoundedDeviation) and isinstance(tau, float):  # a schedule has no one tau
        least, most = bound_weights(rollouts, tau)
        found["credit/unknown_part_of_weights"] = float(credit.tokens.mean(most - least, rollouts.mask))
    return found
