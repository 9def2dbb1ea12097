"""The policy: its warm-up on demonstrations, its responses, and what is read of their tokens."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from estimator_study import models
from estimator_study.models import Parameters, Shape
from torch import Tensor

import credit
from pivot_study.tasks import PIVOT, TASKS, VOCABULARY, Task

LAYERS = 1
GROUP = 16  # responses to a prompt
WARM_UP_ROWS = 64
ATTEMPTS = 5  # fresh models, before a warm-up is given up
APART = 100_000  # between the seeds of attempts
LOOKED_AT = 64  # groups
NO_END = -1  # responses are as long as they can be


@dataclass(frozen=True)
class Cell:
    """A task, and whether its style is `wide` (more uncertain than its pivots) or `narrow` (less)."""

    task_name: str
    style: str

    @property
    def name(self) -> str:
        return f"{self.task_name}-{self.style}"

    @property
    def task(self) -> Task:
        return TASKS[self.task_name]

    @property
    def shape(self) -> Shape:
        return Shape(VOCABULARY, self.task.prompt_tokens + self.task.response_tokens, layers=LAYERS)


@dataclass(frozen=True)
class Responses:
    """N responses of T tokens, 16 to a prompt."""

    prompts: Tensor  # [N, P]
    ids: Tensor  # [N, T]
    kinds: Tensor  # [N, T]
    rewards: Tensor  # [N]

    @property
    def pivots(self) -> Tensor:
        return self.kinds == PIVOT

    @property
    def advantages(self) -> Tensor:
        """GRPO's [N, T]."""
        return credit.GRPO()(self.rollouts()).advantages

    def rollouts(self, **fields: Tensor) -> credit.Rollouts:
        groups = torch.arange(len(self.ids)) // GROUP
        return credit.Rollouts(self.rewards, groups, torch.ones_like(self.ids, dtype=torch.bool), **fields)


def compute_logits(cell: Cell, parameters: Parameters, prompts: Tensor, ids: Tensor) -> Tensor:
    """Of the responses' tokens [N, T, V]."""
    inputs = torch.cat([prompts, ids], 1)[None, :, :-1]
    return models.logits(parameters, cell.shape, inputs)[0, :, -ids.shape[1] :]


def compute_log_probs(cell: Cell, parameters: Parameters, responses: Responses) -> Tensor:
    """Of the sampled tokens [N, T], differentiable."""
    logits = compute_logits(cell, parameters, responses.prompts, responses.ids)
    return credit.selected_log_probs(logits, responses.ids)


def respond(cell: Cell, parameters: Parameters, groups: int, generator: torch.Generator) -> Responses:
    """16 responses to each of some new prompts, at temperature 1."""
    prompts = cell.task.draw_prompts(groups, generator).repeat_interleave(GROUP, 0)
    uniforms = torch.rand(1, len(prompts), cell.task.response_tokens, generator=generator)
    ids = models.sample(parameters, cell.shape, prompts[None], uniforms, NO_END)[0][0]
    return Responses(prompts, ids, cell.task.find_kinds(prompts, ids), cell.task.reward(prompts, ids))


def compute_loss(log_probs: Tensor, advantages: Tensor, weights: Tensor | float) -> Tensor:
    """GRPO's loss at the sampling policy, where no ratio is clipped: -mean(w A log p)."""
    return -(advantages * weights * log_probs).mean()


class WarmUp(NamedTuple):
    """A warmed-up policy, the mean reward of its responses, and how many fresh models it took."""

    policy: Parameters
    reward: float
    attempts: int


def warm_up(cell: Cell, seed: int, steps: int | None, least_reward: float) -> WarmUp:
    """The first model whose responses earn enough after supervised steps; copying is not always learned."""
    for attempt in range(ATTEMPTS):
        own = seed + APART * attempt
        policy = _warm_up(cell, steps or cell.task.warm_up_steps, torch.Generator().manual_seed(own))
        reward = find_reward(cell, policy, own)
        if reward >= least_reward:
            return WarmUp(policy, reward, attempt + 1)
    raise RuntimeError(
        f"{cell.name}, seed {seed}: no warm-up of {ATTEMPTS} reached a reward of {least_reward}"
    )


def find_reward(cell: Cell, policy: Parameters, seed: int) -> float:
    """The mean reward of 1,024 responses."""
    return float(respond(cell, policy, LOOKED_AT, torch.Generator().manual_seed(seed)).rewards.mean())


def _warm_up(cell: Cell, steps: int, generator: torch.Generator) -> Parameters:
    """A fresh model after supervised steps on demonstrations whose pivots are only sometimes right."""
    task = cell.task
    parameters = {name: p.requires_grad_() for name, p in models.initial(cell.shape, generator).items()}
    optimizer = torch.optim.Adam(parameters.values())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.warm_up_rate, steps, pct_start=0.1)
    for _ in range(steps):
        prompts = task.draw_prompts(WARM_UP_ROWS, generator)
        ids = task.demonstrate(prompts, task.right_at_first, cell.style, generator)
        loss = -credit.selected_log_probs(compute_logits(cell, parameters, prompts, ids), ids).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return copy(parameters)


def copy(parameters: Parameters) -> Parameters:
    """A snapshot that no later step changes."""
    return {name: p.detach().clone() for name, p in parameters.items()}
