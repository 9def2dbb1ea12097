"""Completions of all models of a unit for one set of prompts per seed, and their rewards."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

import credit
from estimator_study import models, tasks
from estimator_study.models import Parameters, Shape
from estimator_study.plan import Unit

AT_ONCE = 8192  # completions of all models; attention on a GPU takes no batch beyond 65,535


@dataclass(frozen=True)
class Batch:
    """M models, N completions each, of at most T tokens."""

    prompts: Tensor  # [M, N, P]
    ids: Tensor  # [M, N, T]
    logits: Tensor  # [M, N, T, V]
    mask: Tensor  # [M, N, T]: up to the end, the end included
    rewards: Tensor  # [M, N]
    texts: list[list[str]]  # of the completions

    @property
    def inputs(self) -> Tensor:
        """What the models read to predict the completions [M, N, P + T - 1]."""
        return torch.cat([self.prompts, self.ids], dim=-1)[:, :, :-1]


def shape_of(unit: Unit) -> Shape:
    """The models' shape: room for a prompt and the longest answer."""
    prompt = len(tasks.problems(unit.task, unit.length, 1, "width")[0][0])
    positions = prompt + tasks.answer_tokens(unit.task, unit.length)
    return Shape(tasks.VOCABULARY, positions, unit.settings.width, unit.settings.layers)


def sample(
    unit: Unit, parameters: Parameters, prompts: int, samples: int, purpose: str, *, held_out: bool = False
) -> Batch:
    """`samples` completions of each of `prompts` problems; runs of one seed share problems and numbers.

    The purpose ("step 3") decides them with the seed, so that a resumed run draws what it would have
    drawn. Held-out problems depend on the seed alone.
    """
    device = parameters["head"].device
    repeats = len(parameters["head"]) // len(unit.seeds)
    length = tasks.answer_tokens(unit.task, unit.length)
    problems, uniforms = [], []
    for seed in unit.seeds:
        of_seed = f"held out {seed}" if held_out else f"{purpose} {seed}"
        found = tasks.problems(unit.task, unit.length, prompts, of_seed, held_out=held_out)
        problems.append([problem for problem in found for _ in range(samples)])
        generator = torch.Generator().manual_seed(random.Random(f"{purpose} {seed}").getrandbits(60))
        uniforms.append(torch.rand(prompts * samples, length, generator=generator))
    ids = torch.stack([tasks.encode([prompt for prompt, _ in of_seed]) for of_seed in problems])
    ids = ids.repeat_interleave(repeats, dim=0).to(device)
    drawn = torch.stack(uniforms).repeat_interleave(repeats, dim=0).to(device)
    rows = max(1, AT_ONCE // len(ids))
    parts = [
        models.sample(parameters, shape_of(unit), *part, tasks.END)
        for part in zip(ids.split(rows, dim=1), drawn.split(rows, dim=1), strict=True)
    ]
    chosen, logits, mask = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    texts = [tasks.decode(row) for row in chosen]
    task = tasks.TASKS[unit.task]
    rewards = [
        [float(task.right(problem, text)) for problem, text in zip(problems[m // repeats], row, strict=True)]
        for m, row in enumerate(texts)
    ]
    return Batch(ids, chosen, logits, mask, torch.tensor(rewards, device=device), texts)


def entropy(batch: Batch) -> Tensor:
    """Mean entropy of the policy's tokens [M], nats."""
    _, found = credit.log_probs_and_entropy(batch.logits, batch.ids)
    return (found * batch.mask).sum((1, 2)) / batch.mask.sum((1, 2))


def evaluate(unit: Unit, parameters: Parameters, prompts: int, purpose: str) -> list[dict[str, float | None]]:
    """Of each model on held-out prompts: accuracy, best of k, entropy and diversity of right answers."""
    samples = unit.settings.evaluation_samples
    batch = sample(unit, parameters, prompts, samples, purpose, held_out=True)
    right = batch.rewards.unflatten(1, (prompts, samples))
    entropies = entropy(batch).tolist()
    several = tasks.TASKS[unit.task].many_answers
    return [
        {
            "accuracy": right[m].mean().item(),
            "best_of_k": right[m].amax(dim=1).mean().item(),
            "entropy": entropies[m],
            "diversity": diversity(batch.texts[m], batch.rewards[m].tolist(), samples) if several else None,
        }
        for m in range(len(right))
    ]


def diversity(texts: list[str], right: list[float], samples: int) -> float | None:
    """The chance that two right answers to one prompt differ; None where no prompt has two."""
    chances = []
    for start in range(0, len(texts), samples):
        rows = range(start, start + samples)
        answers = [texts[row] for row in rows if right[row]]
        pairs = len(answers) * (len(answers) - 1)
        if pairs:
            equal = sum(answers.count(answer) - 1 for answer in answers)
            chances.append(1 - equal / pairs)
    return sum(chances) / len(chances) if chances else None
