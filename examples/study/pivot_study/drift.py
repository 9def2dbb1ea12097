"""GRPO under a regime of batch size and learning rate, looked at where the policy reached fixed drifts."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from estimator_study.models import Parameters
from scipy import stats
from torch import Tensor

import credit
from pivot_study.arms import ARMS, Seen
from pivot_study.policy import (
    Cell,
    Responses,
    compute_log_probs,
    compute_logits,
    compute_loss,
    copy,
    respond,
)
from pivot_study.tasks import KINDS, PIVOT

LEVELS = (0.001, 0.01, 0.05, 0.15)  # mean deviation of the kind of tokens that drifted most
LOOKED_AT = 16  # groups


class Regime(NamedTuple):
    """What a step of GRPO takes."""

    groups: int
    rate: float
    most_steps: int

    @property
    def name(self) -> str:
        return f"{self.groups} groups, {self.rate:g}"


class Checkpoint(NamedTuple):
    """A policy that drifted to a level, and the one half-way to it."""

    level: float
    step: int
    reward: float
    policy: Parameters
    half_way: Parameters


def step(
    cell: Cell,
    parameters: Parameters,
    optimizer: torch.optim.Optimizer,
    responses: Responses,
    weights: Tensor | float,
) -> None:
    """One update on a batch."""
    optimizer.zero_grad()
    log_probs = compute_log_probs(cell, parameters, responses)
    compute_loss(log_probs, responses.advantages, weights).backward()
    optimizer.step()


def drift(
    cell: Cell, reference: Parameters, regime: Regime, generator: torch.Generator
) -> Iterator[Checkpoint]:
    """The checkpoints of a run; of levels that one step crosses together only the highest."""
    parameters = {name: p.clone().requires_grad_() for name, p in reference.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=regime.rate)
    history = [copy(parameters)]
    levels = list(LEVELS)
    for number in range(1, regime.most_steps + 1):
        responses = respond(cell, parameters, regime.groups, generator)
        step(cell, parameters, optimizer, responses, 1.0)
        history.append(copy(parameters))
        drifted = measure_drift(cell, history[-1], reference, responses)
        reached = [level for level in levels if drifted >= level]
        if reached:
            levels = [level for level in levels if level > reached[-1]]
            reward = float(responses.rewards.mean())
            yield Checkpoint(reached[-1], number, reward, history[-1], history[number // 2])
        if not levels:
            return


def measure_drift(cell: Cell, policy: Parameters, reference: Parameters, responses: Responses) -> float:
    """The mean deviation of the kind of tokens that drifted most."""
    with torch.no_grad():
        now, first = (
            compute_logits(cell, each, responses.prompts, responses.ids) for each in (policy, reference)
        )
    deviation = credit.token_statistics(now, first, responses.ids).deviation
    return max(_mean(deviation, responses.kinds == kind) for kind in range(len(KINDS)))


def describe(
    cell: Cell, reference: Parameters, checkpoint: Checkpoint, generator: torch.Generator
) -> dict[str, Any]:
    """What the tokens look like at a checkpoint, and how well each arm's weights find the pivots."""
    responses = respond(cell, checkpoint.policy, LOOKED_AT, generator)
    seen = Seen(cell, responses, checkpoint.policy, checkpoint.half_way, reference, generator)
    kinds = {name: responses.kinds == number for number, name in enumerate(KINDS)}
    return {
        "level": checkpoint.level,
        "step": checkpoint.step,
        "reward": float(responses.rewards.mean()),
        "deviation": {name: _mean(seen.deviation, tokens) for name, tokens in kinds.items()},
        "entropy": {name: _mean(seen.entropy, tokens) for name, tokens in kinds.items()},
        "arms": {name: judge(weigh(seen), seen) for name, weigh in ARMS.items()},
    }


def judge(weights: Tensor, seen: Seen) -> dict[str, float]:
    """How well weights find the pivots, how uneven they are, and what a user can see of either."""
    squares = weights.square().mean(1)
    return {
        "auc": find_auc(weights, seen.responses),
        "effective_fraction": float((1.0 / squares).mean()),
        "alignment": align(weights, seen),
    }


def align(weights: Tensor, seen: Seen) -> float:
    """Mean over root mean square, over responses, of A_i sum_t w_t (log p_t - log q_t).

    With weights of 1 it is the metric drift_alignment: whether the policy left its reference for what earns
    rewards. It needs no knowledge of the pivots, and the batch was not trained on.
    """
    moved = seen.statistics.log_probs - seen.statistics.reference_log_probs
    each = (seen.responses.advantages * weights * moved).sum(1)
    return float(each.mean() / each.square().mean().sqrt().clamp(min=1e-30))


def find_auc(weights: Tensor, responses: Responses) -> float:
    """The chance that a pivot has a higher weight than another token."""
    pivots, others = weights[responses.kinds == PIVOT], weights[responses.kinds != PIVOT]
    if not len(pivots):
        return float("nan")
    found = stats.mannwhitneyu(pivots.numpy(), others.numpy(), method="asymptotic")
    return float(found.statistic) / (len(pivots) * len(others))


def _mean(values: Tensor, where: Tensor) -> float:
    return float(values[where].mean()) if where.any() else 0.0
