"""Training under one arm from the warm-up on, to the plateau."""

from typing import Any

import torch
from estimator_study.models import Parameters

from pivot_study.arms import ARMS, Seen
from pivot_study.drift import Regime, step
from pivot_study.policy import Cell, copy, respond


def train(
    cell: Cell, reference: Parameters, arm: str, regime: Regime, generator: torch.Generator
) -> dict[str, Any]:
    """The rewards of each step's batch, before its update."""
    parameters = {name: p.clone().requires_grad_() for name, p in reference.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=regime.rate)
    rewards = []
    for _ in range(regime.most_steps):
        responses = respond(cell, parameters, regime.groups, generator)
        now = copy(parameters)
        weights = ARMS[arm](Seen(cell, responses, now, now, reference, generator))
        step(cell, parameters, optimizer, responses, weights)
        rewards.append(round(float(responses.rewards.mean()), 5))
    return {"rewards": rewards}
