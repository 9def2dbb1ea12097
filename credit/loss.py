"""The policy loss that an estimator's paper prescribes, as settings that compute it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from credit import tokens, validation
from credit.backends.arrays import namespace, stop_gradient
from credit.types import Array

Aggregation = Literal["token_mean", "sequence_mean", "sequence_sum", "fixed_horizon"]


class PolicyLoss(BaseModel):
    """Policy-gradient loss with an optional KL penalty; calling it computes the loss.

        rho = exp(log p - log p_old)                                  (ratio="token")
        rho = sg(exp(mean_t(log p - log p_old))) p / sg(p)            (ratio="sequence", GSPO)
        l = max(-rho A, -clip(rho, 1 - clip_low, 1 + clip_high) A)    (objective="clip")
        l = min(l, -dual_clip A)  where A < 0                         (only with dual_clip)
        l = -sg(clip(rho, 1 - clip_low, 1 + clip_high)) A log p       (objective="cispo")
        l = l min(p_old / p_rollout, rollout_cap)                     (only with rollout_cap)
        l = l + kl_coefficient KL,   x = log q - log p
            k1: -x    k2: x^2 / 2    k3: exp(x) - x - 1

    sg stops the gradient; GSPO's token form has the paper's gradient where A is the same for all tokens
    and is right for token-level A.

    The token losses l [N, T] become a number by `aggregation`, over the mask's tokens:

        token_mean      sum over all tokens / number of tokens
        sequence_mean   mean over a response's tokens, then over responses
        sequence_sum    sum over a response's tokens, then mean over responses
        fixed_horizon   sum over a response's tokens / horizon, then mean over responses

    Responses without a token are not counted. Sources: PPO arXiv 1707.06347, dual clip 1912.09729,
    clip-higher 2503.14476, fixed horizon 2503.20783, GSPO 2507.18071, CISPO 2506.13585.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_low: Annotated[float, Field(ge=0, le=1)] = 0.2
    clip_high: Annotated[float, Field(ge=0)] = 0.2
    ratio: Literal["token", "sequence"] = "token"
    objective: Literal["clip", "cispo"] = "clip"
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    aggregation: Aggregation = "sequence_mean"
    horizon: Annotated[int, Field(ge=1)] | None = None
    """Tokens, for fixed_horizon: the longest response allowed. None: the width T of the arrays."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    kl: Literal["k1", "k2", "k3"] = "k3"
    rollout_cap: Annotated[float, Field(gt=0)] | None = None
    """Truncated importance sampling for what a rollout engine's log-probs differ by; None: no correction."""

    @model_validator(mode="after")
    def _all_have_effect(self) -> Self:
        if self.dual_clip is not None and self.objective != "clip":
            raise ValueError(f"dual_clip has no effect with objective={self.objective!r}; leave it out")
        if self.horizon is not None and self.aggregation != "fixed_horizon":
            raise ValueError(f"horizon has no effect with aggregation={self.aggregation!r}; leave it out")
        return self

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
        """The loss, a 0-d array differentiable in log_probs, and metrics without gradient.

        Args:
            log_probs: log p [N, T], nats, of the policy being trained.
            old_log_probs: log p_old [N, T], of the policy when the advantages were computed.
            advantages: A [N, T], or [N] for one number per response.
            mask: [N, T], bool or 0/1.
            reference_log_probs: log q [N, T]; needed if kl_coefficient is not 0.
            rollout_log_probs: [N, T], of the engine that sampled; needed with rollout_cap, and reported
                against old_log_probs as `rollout_ratio_mean`, `_min` and `_max`.
            normalizer: number of tokens (token_mean) or of responses (the others) to divide by, for
                gradient accumulation and data parallelism; default: those of this batch.

        Raises:
            ValueError: shapes do not fit, or the KL penalty or the correction lacks its log-probs.
        """
        xp = validation.check_same_library(
            log_probs=log_probs,
            old_log_probs=old_log_probs,
            advantages=advantages,
            mask=mask,
            reference_log_probs=reference_log_probs,
            rollout_log_probs=rollout_log_probs,
        )
        if log_probs.ndim != 2:
            raise ValueError(f"log_probs has shape {tuple(log_probs.shape)}; expected [N, T]")
        if advantages.ndim == 1:
            validation.check_shape("advantages", advantages, log_probs.shape[:1], "[N] of log_probs")
            advantages = advantages[:, None] + xp.zeros_like(log_probs, dtype=advantages.dtype)
        if self.kl_coefficient and reference_log_probs is None:
            raise ValueError("kl_coefficient is not 0, so the loss needs reference_log_probs")
        if self.rollout_cap is not None and rollout_log_probs is None:
            raise ValueError("rollout_cap is set, so the loss needs rollout_log_probs")
        mask = xp.astype(mask, xp.bool)
        dtype = xp.float64 if log_probs.dtype == xp.float64 else xp.float32

        def clean(name: str, array: Array) -> Array:
            validation.check_shape(name, array, log_probs.shape, "as log_probs")
            return xp.where(mask, xp.astype(array, dtype), 0.0)

        validation.check_shape("mask", mask, log_probs.shape, "as log_probs")
        new = clean("log_probs", log_probs)
        old = stop_gradient(clean("old_log_probs", old_log_probs))
        advantages = stop_gradient(clean("advantages", advantages))
        ratio = self._ratio(new, old, mask)
        losses, metrics = self._losses(ratio, new, advantages, mask)
        metrics |= _ratio_metrics("ratio", ratio, mask)
        metrics["approx_kl"] = tokens.mean(xp.exp(new - old) - 1.0 - (new - old), mask)
        if rollout_log_probs is not None:
            mismatch = xp.exp(old - stop_gradient(clean("rollout_log_probs", rollout_log_probs)))
            metrics |= _ratio_metrics("rollout_ratio", mismatch, mask)
            if self.rollout_cap is not None:
                losses = losses * xp.clip(mismatch, max=self.rollout_cap)
        if self.kl_coefficient:
            x = stop_gradient(clean("reference_log_probs", reference_log_probs)) - new
            kl = {"k1": lambda: -x, "k2": lambda: 0.5 * x * x, "k3": lambda: xp.exp(x) - x - 1.0}[self.kl]()
            losses = losses + self.kl_coefficient * kl
            metrics["kl"] = tokens.mean(kl, mask)
        loss = self._aggregate(losses, mask, normalizer)
        return loss, {name: stop_gradient(value) for name, value in metrics.items()}

    def _ratio(self, new: Array, old: Array, mask: Array) -> Array:
        xp = namespace(new)
        if self.ratio == "token":
            return xp.exp(new - old)
        length = xp.clip(tokens.length(mask, new.dtype), min=1.0)
        mean = xp.sum(xp.where(mask, new - old, 0.0), axis=-1, keepdims=True) / length
        return xp.exp(stop_gradient(mean) + new - stop_gradient(new))

    def _losses(
        self, ratio: Array, new: Array, advantages: Array, mask: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The token losses [N, T], and the fractions of tokens that each bound holds back."""
        xp = namespace(ratio)
        plain = -ratio * advantages
        bounded = xp.clip(ratio, min=1.0 - self.clip_low, max=1.0 + self.clip_high)
        clipped = -bounded * advantages
        losses = xp.where(clipped > plain, clipped, plain)
        cut = clipped > plain
        fraction = {
            "clip_fraction_low": cut & (advantages < 0.0),
            "clip_fraction_high": cut & (advantages > 0.0),
        }
        if self.objective == "cispo":
            losses = -stop_gradient(bounded) * advantages * new
            fraction = {
                "clip_fraction_low": ratio < 1.0 - self.clip_low,
                "clip_fraction_high": ratio > 1.0 + self.clip_high,
            }
        elif self.dual_clip is not None:
            bound = -self.dual_clip * advantages
            capped = (advantages < 0.0) & (losses > bound)
            losses = xp.where(capped, bound, losses)
            fraction["clip_fraction_dual"] = capped
        return losses, {
            name: tokens.mean(xp.astype(flag, losses.dtype), mask) for name, flag in fraction.items()
        }

    def _aggregate(self, losses: Array, mask: Array, normalizer: Array | float | None) -> Array:
        xp = namespace(losses)
        losses = xp.where(mask, losses, 0.0)
        lengths = tokens.length(mask, losses.dtype)[:, 0]
        if self.aggregation == "token_mean":
            count = xp.clip(xp.sum(lengths), min=1.0) if normalizer is None else normalizer
            return xp.sum(losses) / count
        sums = xp.sum(losses, axis=-1)
        if self.aggregation == "sequence_mean":
            sums = sums / xp.clip(lengths, min=1.0)
        elif self.aggregation == "fixed_horizon":
            sums = sums / (self.horizon or mask.shape[-1])
        if normalizer is None:
            normalizer = xp.clip(xp.sum(xp.astype(lengths > 0.0, losses.dtype)), min=1.0)
        return xp.sum(sums) / normalizer


def _ratio_metrics(name: str, ratio: Array, mask: Array) -> dict[str, Array]:
    return {
        f"{name}_mean": tokens.mean(ratio, mask),
        f"{name}_min": tokens.extreme(ratio, mask, largest=False),
        f"{name}_max": tokens.extreme(ratio, mask, largest=True),
    }
