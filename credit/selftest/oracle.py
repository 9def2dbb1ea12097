"""Float64 answers from plain numpy loops, token by token and response by response, for check.py."""

from collections.abc import Callable
from typing import Any

import numpy as np

from credit.types import Rollouts


def token_statistics(x: Any, y: Any, ids: Any, temperature: float) -> tuple[Any, ...]:
    """log p, log q, H and d in float64, token by token."""
    result = np.zeros((4, *ids.shape))
    for place in np.ndindex(ids.shape):
        log_p, log_q = (_log_softmax(np.asarray(side[place], np.float64) / temperature) for side in (x, y))
        p, q = np.exp(log_p), np.exp(log_q)
        some = p > 0
        entropy, distance = -(p[some] * log_p[some]).sum(), 0.5 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum()
        result[(slice(None), *place)] = log_p[ids[place]], log_q[ids[place]], entropy, distance
    return tuple(result)


def _log_softmax(x: Any) -> Any:
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())


def _advantages_per_response(estimator: Any, rollouts: Rollouts, score: Callable[..., float]) -> Any:
    result = np.zeros(rollouts.mask.shape)
    for i, reward in enumerate(rollouts.rewards):
        group = [r for r, g in zip(rollouts.rewards, rollouts.groups, strict=True) if g == rollouts.groups[i]]
        result[i, rollouts.mask[i]] = score(estimator, reward, group)
    return result


def _grpo(estimator: Any, reward: float, group: list[float]) -> float:
    centred = reward - sum(group) / len(group)
    variance = sum((r - sum(group) / len(group)) ** 2 for r in group) / max(
        len(group) - estimator.correction, 1
    )
    return 0.0 if len(set(group)) == 1 else centred / (variance**0.5 + estimator.eps)


def _rloo(_: Any, reward: float, group: list[float]) -> float:
    return 0.0 if len(group) < 2 else reward - (sum(group) - reward) / (len(group) - 1)


def _dgpo(estimator: Any, rollouts: Rollouts) -> Any:
    advantages = _advantages_per_response(estimator, rollouts, _grpo)
    for i, mask in enumerate(rollouts.mask):
        gate = rollouts.normalized_entropy[i, mask] ** estimator.kappa
        weights = np.exp(rollouts.deviation[i, mask] * gate / estimator.tau)
        advantages[i, mask] *= mask.sum() * weights / weights.sum()
    return advantages


ORACLES: dict[str, Callable[..., Any]] = {
    "grpo": lambda e, r: _advantages_per_response(e, r, _grpo),
    "dapo": lambda e, r: _advantages_per_response(e, r, _grpo),
    "dr_grpo": lambda e, r: _advantages_per_response(
        e, r, lambda _, reward, group: reward - sum(group) / len(group)
    ),
    "rloo": lambda e, r: _advantages_per_response(e, r, _rloo),
    "dgpo": _dgpo,
}
