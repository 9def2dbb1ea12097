"""The weight p_old / p_rollout, which corrects for a rollout engine's own log-probs."""

from credit.backends.arrays import namespace
from credit.log_ratios import bound_log_ratios
from credit.losses.ratios import summarize_ratio
from credit.types import Array


def weigh_rollouts(
    log_ratios: Array, mask: Array, cap: float | None
) -> tuple[Array | float, dict[str, Array]]:
    """The weight of each token [N, T], min(p_old / p_rollout, cap), and metrics.

    Args:
        log_ratios: log p_old - log p_rollout [N, T], without gradient, 0 outside the mask.
        mask: [N, T], bool.
        cap: the largest weight; None: the weight is 1, and the metrics alone are of use.
    """
    xp = namespace(log_ratios)
    weight = xp.exp(bound_log_ratios(log_ratios))
    metrics = summarize_ratio("rollout_ratio", weight, mask)
    return (1.0 if cap is None else xp.clip(weight, max=cap)), metrics
