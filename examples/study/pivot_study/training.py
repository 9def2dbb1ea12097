"""Training under one arm from the warm-up on, to the plateau."""

from typing import Any

import torch
from estimator_study.models import Parameters

from pivot_study.arms import ARMS, Seen
from pivot_study.drift import step
from pivot_study.policy import Cell, copy, respond

GROUPS = 1  # of 16 responses: few enough for the noise of the gradient to matter


def train(
    cell: Cell, reference: Parameters, arm: str, rate: float, steps: int, generator: torch.Generator
) -> dict[str, Any]:
    """The rewards of each step's batch, before its update."""
    parameters = {name: p.clone().requires_grad_() for name, p in reference.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=rate)
    rewards = []
    for _ in range(steps):
        responses = respond(cell, parameters, GROUPS, generator)
        now = copy(parameters)
        weights = ARMS[arm](Seen(cell, responses, now, now, reference, generator))
        step(cell, parameters, optimizer, responses, weights)
        rewards.append(round(float(responses.rewards.mean()), 5))
    return {"rewards": rewards}
