"""The policy loss that an estimator's paper prescribes, as settings that compute it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from credit import tokens, validation
from credit.backends.arrays import as_type, stop_gradient
from credit.log_ratios import KL, bound_log_probs, estimate_kl
from credit.losses.aggregation import Aggregation as Aggregation
from credit.losses.aggregation import aggregate_losses
from credit.losses.checks import check_effects
from credit.losses.inputs import LossInputs, check_log_probs, make_cleaner, repeat_for_tokens
from credit.losses.objectives import OBJECTIVES, SETTINGS
from credit.losses.papers import find_paper
from credit.losses.ratios import Ratio, summarize_ratio
from credit.losses.rollouts import RolloutLevel, RolloutRule, weigh_rollouts
from credit.settings import Settings
from credit.types import Array

KernelNumber = Annotated[float, Field(gt=0, le=100)]
Objective = Literal["clip", "cispo", "sapo", "vespo", "gmpo", "dppo_tv", "dppo_kl", "clip_cov", "kl_cov"]


class PolicyLoss(Settings):
    """Policy-gradient loss with an optional KL penalty; calling it computes the loss.

        rho = exp(log p - log p_old)                                  (ratio="token")
        rho = sg(exp(mean_t(log p - log p_old))) p / sg(p)            (ratio="sequence", GSPO-token)
        l = max(-rho A, -clip(rho, 1 - clip_low, 1 + clip_high) A)    (objective="clip")
        l = min(l, -dual_clip A)  where A < 0                         (only with dual_clip)
        l = -sg(clip(rho, 1 - clip_low, 1 + clip_high)) A log p       ("cispo")
        l = -4 / tau sigmoid(tau (rho - 1)) A                         ("sapo")
        l = -sg(W^k exp(lambda (1 - W))) A log p                      ("vespo", W: product of ratios)
        l = -sg(exp(mean_t(c))) exp(c) / sg(exp(c)) A                 ("gmpo", c: clipped log rho)
        l = -sg(min(rho, ratio_cap) [D <= clip]) A p / sg(p)          ("dppo_tv", "dppo_kl", D: divergence)
        l = as "clip", but 0 for a few tokens of high covariance      ("clip_cov")
        l = -rho A, and a penalty for a few of the highest            ("kl_cov")
        l = l min(p_old / p_rollout, rollout_cap)                     (only with rollout_cap)
        l = l + kl_coefficient KL,   x = log q - log p
            k1: -x    k2: x^2 / 2    k3: exp(x) - x - 1

    sg stops the gradient. With ratio="sequence", which the GSPO paper calls GSPO-token, each token has its
    own advantage; where a response has one for all its tokens, value and gradient are those of GSPO. The
    objectives are functions of `credit.losses`, whose docstrings have the whole formulas; `from_paper` sets
    what a paper has. Clip-Cov and KL-Cov compare the tokens of the arrays that the loss is called with: where
    these are one part of several, `normalizer` cannot make the parts add up to the whole.

    Loss, metrics and gradient are finite for all finite log-probs, for -inf, and for A below 1e18: before
    exp, a log-ratio above 20 counts as 20 (`ratio_max` is then 4.9e8), a log-prob below -1e12 as -1e12, and
    neither has a gradient beyond, also where A < 0. Where sg stops that of the ratio, as in cispo, dppo_tv
    and vespo, the log-prob of the token keeps its own. Gradients in float16 hold ratios to 6e4.

    The losses l [N, T] of the mask's tokens are reduced to one number by `aggregation`:

        token_mean      sum over all tokens / number of tokens
        sequence_mean   mean over a response's tokens, then over responses
        sequence_sum    sum over a response's tokens, then mean over responses
        fixed_horizon   sum over a response's tokens / horizon, then mean over responses

    Responses without a token are not counted; tokens whose loss is 0 are. Sources: PPO arXiv 1707.06347, dual
    clip 1912.09729, clip-higher 2503.14476, fixed horizon 2503.20783, GSPO 2507.18071, CISPO 2506.13585,
    SAPO 2511.20347, VESPO 2602.10693, GMPO 2507.20673, DPPO 2602.04879, Clip-Cov and KL-Cov 2505.22617,
    IcePop 2510.18855.

    Example:
        >>> import numpy as np
        >>> import credit
        >>> new, old = np.log([[0.6, 0.5]]), np.log([[0.4, 0.5]])
        >>> loss, metrics = credit.PolicyLoss()(new, old, np.array([[1.0, 1.0]]), np.array([[1, 1]]))
        >>> round(float(loss), 3), round(float(metrics["ratio_max"]), 3), float(metrics["clip_fraction_high"])
        (-1.1, 1.5, 0.5)
    """

    clip_low: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The ratio rho is clipped from below at 1 - clip_low; in gmpo the log-ratio at -clip_low, and in dppo_tv
    and dppo_kl the divergence at clip_low, where a token becomes less likely."""
    clip_high: Annotated[float, Field(ge=0, allow_inf_nan=True)] = 0.2
    """The ratio rho is clipped from above at 1 + clip_high, not at all where that is infinite; in gmpo the
    log-ratio at clip_high, and in dppo_tv and dppo_kl the divergence, where a token becomes more likely."""
    ratio: Ratio = "token"
    """Whether rho is the ratio of a token's probabilities, or the geometric mean over its response (GSPO and
    GSPO-token), which the GSPO paper clips at 1 - 3e-4 and 1 + 4e-4."""
    objective: Objective = "clip"
    """PPO's clipped objective; CISPO's, which clips the ratio but keeps the gradient of every token; SAPO's
    and VESPO's smooth gates; GMPO's geometric mean; DPPO's bound on a divergence; or Clip-Cov's and
    KL-Cov's, which treat tokens of high covariance apart."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """A token with a negative advantage costs at most -dual_clip A; None: no such bound."""
    temperature_positive: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """tau of sapo's gate for tokens with a positive advantage."""
    temperature_negative: Annotated[float, Field(ge=0.01, le=100)] = 1.05
    """tau of sapo's gate for the other tokens."""
    kernel_positive: tuple[KernelNumber, KernelNumber] = (2.0, 3.0)
    """k and lambda of vespo's W^k exp(lambda (1 - W)) for tokens with a positive advantage."""
    kernel_negative: tuple[KernelNumber, KernelNumber] = (3.0, 2.0)
    """k and lambda of vespo's kernel for the other tokens."""
    ratio_cap: Annotated[float, Field(gt=0)] | None = None
    """Largest weight rho of a token in dppo_tv and dppo_kl, which keeps its gradient; None: no such cap."""
    covariance_fraction: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Share of the tokens that clip_cov and kl_cov treat apart, at least one token."""
    covariance_low: float = 1.0
    """clip_cov chooses among the tokens whose covariance is above this."""
    covariance_high: float = 5.0
    """clip_cov chooses among the tokens whose covariance is below this."""
    covariance_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Factor on abs(log p - log p_old) of the tokens that kl_cov chooses."""
    aggregation: Aggregation = "sequence_mean"
    """How the losses of the tokens become one number."""
    horizon: Annotated[int, Field(ge=1)] | None = None
    """Divisor of fixed_horizon, the longest response that the sampler allows, in tokens. The loss needs it
    then: the width T of the arrays is no constant, since it follows the padding."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the KL penalty against the reference; 0: no penalty, and no reference is needed."""
    kl: KL = "k3"
    """Estimator of the KL divergence from the log-probs of the sampled tokens."""
    rollout_cap: Annotated[float, Field(gt=0)] | None = None
    """Largest weight p_old / p_rollout, which corrects for a rollout engine's own log-probs; None: none."""
    rollout_floor: Annotated[float, Field(gt=0)] | None = None
    """Smallest weight p_old / p_rollout, beside rollout_cap; None: none."""
    rollout_rule: RolloutRule = "truncate"
    """What becomes of a weight beyond rollout_cap or rollout_floor: truncate sets it to the bound, mask to 0
    (IcePop, masked importance sampling), and the token still counts in the mean."""
    rollout_level: RolloutLevel = "token"
    """Whether each token has its own weight, or all tokens of a response the product of theirs."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        check_effects(self)
        return self

    @classmethod
    def from_paper(cls, name: str, **settings: Any) -> Self:
        """The loss of a paper, where settings that are given replace the paper's.

        Args:
            name: gspo, gspo_token, sapo, vespo, gmpo, dppo_tv, dppo_kl, clip_cov, kl_cov or icepop; any other
                is a ValueError that lists these.
            **settings: of the class.

        Example:
            >>> import credit
            >>> credit.PolicyLoss.from_paper("gspo_token", kl_coefficient=0.1).clip_high
            0.0004
        """
        return cls(**{**find_paper(name), **settings})

    def __call__(
        self,
        log_probs: Array,
        old_log_probs: Array,
        advantages: Array,
        mask: Array,
        *,
        reference_log_probs: Array | None = None,
        rollout_log_probs: Array | None = None,
        normalizer: Array | float | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """The loss as a 0-d array that is differentiable in log_probs, and metrics without gradient.

        Args:
            log_probs: log p [N, T], nats, of the policy that is trained.
            old_log_probs: log p_old [N, T], of the policy for which the advantages were computed.
            advantages: A [N, T], or [N] for one number per response.
            mask: [N, T], bool, or 0 and 1.
            reference_log_probs: log q [N, T]; needed if kl_coefficient is not 0.
            rollout_log_probs: log p_rollout [N, T], from the engine that sampled; needed with rollout_cap.
                The metrics `rollout_ratio_mean`, `_min` and `_max` compare it with old_log_probs.
            normalizer: the number of tokens (token_mean) or of responses (the others) to divide by, where
                the batch is one part of several (gradient accumulation, data parallelism). Default: the
                number in this batch.

        Returns:
            The loss and the metrics, float32, or float64 for float64 log_probs: `ratio_mean`, `_min`, `_max`
            and `approx_kl`, the share of tokens that each clip of the objective holds (`clip_fraction_low`,
            `_high`, `_dual`, `_cap`, `_covariance`), `penalized_fraction` of kl_cov,
            `rollout_masked_fraction` of rollout_rule="mask", and `kl`.

        Raises:
            ValueError: shapes do not fit, log-probs are missing that the KL penalty or the rollout
                correction needs, or fixed_horizon has no horizon.
        """
        validation.check_same_library(
            log_probs=log_probs,
            old_log_probs=old_log_probs,
            advantages=advantages,
            mask=mask,
            reference_log_probs=reference_log_probs,
            rollout_log_probs=rollout_log_probs,
        )
        check_log_probs(log_probs)
        advantages = repeat_for_tokens(advantages, log_probs)
        self._check_needs(reference_log_probs, rollout_log_probs)
        mask, clean = make_cleaner(log_probs, mask)
        new = bound_log_probs(clean("log_probs", log_probs))
        old = stop_gradient(bound_log_probs(clean("old_log_probs", old_log_probs)))
        advantages = stop_gradient(clean("advantages", advantages))
        settings = {name: getattr(self, name) for name in SETTINGS[self.objective]}
        result = OBJECTIVES[self.objective](LossInputs(new, old, advantages, mask), **settings)
        losses = result.losses
        metrics = {
            name: tokens.mean(as_type(chosen, losses.dtype), mask) for name, chosen in result.shares.items()
        }
        metrics |= summarize_ratio("ratio", result.ratio, mask)
        metrics["approx_kl"] = tokens.mean(estimate_kl(new - old, "k3"), mask)
        if rollout_log_probs is not None:
            rollout = stop_gradient(bound_log_probs(clean("rollout_log_probs", rollout_log_probs)))
            bounds = self.rollout_floor, self.rollout_cap
            weights, more = weigh_rollouts(old - rollout, mask, bounds, self.rollout_rule, self.rollout_level)
            losses, metrics = losses * weights, metrics | more
        if self.kl_coefficient:
            reference = bound_log_probs(clean("reference_log_probs", reference_log_probs))
            kl = estimate_kl(stop_gradient(reference) - new, self.kl)
            losses = losses + self.kl_coefficient * kl
            metrics["kl"] = tokens.mean(kl, mask)
        loss = aggregate_losses(losses, mask, self.aggregation, self.horizon, normalizer)
        return loss, {name: stop_gradient(value) for name, value in metrics.items()}

    def _check_needs(self, reference_log_probs: Array | None, rollout_log_probs: Array | None) -> None:
        if self.kl_coefficient and reference_log_probs is None:
            raise ValueError(
                f"kl_coefficient is {self.kl_coefficient:g}, so the loss needs reference_log_probs; "
                "pass them, or set kl_coefficient to 0"
            )
        if self.rollout_cap is not None and rollout_log_probs is None:
            raise ValueError(
                f"rollout_cap is {self.rollout_cap:g}, so the loss needs rollout_log_probs; "
                "pass them, or leave rollout_cap out"
            )
        if self.aggregation == "fixed_horizon" and self.horizon is None:
            raise ValueError(
                "aggregation is 'fixed_horizon', so the loss needs horizon, the longest response that the "
                "sampler allows, in tokens: PolicyLoss(aggregation='fixed_horizon', horizon=4096)"
            )
