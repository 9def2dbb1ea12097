"""The weight p_old / p_rollout, which corrects for a rollout engine's own log-probs."""

from typing import Literal

from credit import tokens
from credit.backends.arrays import as_type, namespace
from credit.log_ratios import bound_log_ratios
from credit.losses.ratios import summarize_ratio
from credit.types import Array

RolloutRule = Literal["truncate", "mask"]
RolloutLevel = Literal["token", "sequence"]


def weigh_rollouts(
    log_ratios: Array,
    mask: Array,
    bounds: tuple[float | None, float | None],
    rule: RolloutRule,
    level: RolloutLevel,
) -> tuple[Array | float, dict[str, Array]]:
    """The weight of each token [N, T] or of each response [N, 1], and metrics.

        w = p_old / p_rollout  (level="token"),   its product over the response  (level="sequence")
        min(max(w, floor), cap)                   (rule="truncate")
        w  where floor <= w <= cap,   0 elsewhere (rule="mask")

    Args:
        log_ratios: log p_old - log p_rollout [N, T], without gradient, 0 outside the mask.
        mask: [N, T], bool.
        bounds: floor and cap; without a cap the weight is 1, and the metrics alone are of use.

    Sources: truncated importance sampling, IcePop arXiv 2510.18855 (mask).
    """
    xp, (floor, cap) = namespace(log_ratios), bounds
    weight = xp.exp(bound_log_ratios(log_ratios))
    metrics = summarize_ratio("rollout_ratio", weight, mask)
    if cap is None:
        return 1.0, metrics
    if level == "sequence":
        weight = xp.exp(bound_log_ratios(xp.sum(log_ratios, axis=-1, keepdims=True)))
    if rule == "truncate":
        return xp.clip(weight, min=floor, max=cap), metrics
    kept = (weight <= cap) & (weight >= (0.0 if floor is None else floor))
    dropped = xp.broadcast_to(as_type(~kept, weight.dtype), mask.shape)
    return xp.where(kept, weight, 0.0), metrics | {"rollout_masked_fraction": tokens.mean(dropped, mask)}
