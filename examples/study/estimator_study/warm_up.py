"""Supervised steps on right answers until sampling finds one often enough for RL to start from."""

from collections.abc import Callable

import torch
from torch import Tensor

import credit
from estimator_study import models, sampling, tasks
from estimator_study.models import Parameters
from estimator_study.plan import Unit

RAMP = 50  # steps over which the learning rate rises
LOOK_EVERY = 5
LOOK_AT = 128  # held-out prompts


def warm_up(
    unit: Unit, device: torch.device, stop: Callable[[], bool]
) -> tuple[Parameters, list[dict[str, float]]] | None:
    """One model per seed [S, ...], and when each reached which accuracy; None if stopped.

    A seed whose model never reaches the accuracy keeps the last one; the caller sees it by the number.
    """
    settings, seeds = unit.settings, unit.seeds
    fresh = [models.initial(sampling.shape_of(unit), torch.Generator().manual_seed(seed)) for seed in seeds]
    parameters = {name: p.to(device).requires_grad_() for name, p in models.stack(fresh).items()}
    optimizer = torch.optim.AdamW(parameters.values(), weight_decay=0.01)
    ready: dict[int, tuple[Parameters, dict[str, float]]] = {}  # by number of the seed
    for step in range(settings.warm_up_steps + 1):
        last = step == settings.warm_up_steps
        if step % LOOK_EVERY == 0 or last:
            found = sampling.sample(unit, parameters, LOOK_AT, 1, "warm-up", held_out=True)
            for m, accuracy in enumerate(found.rewards.mean(1).tolist()):
                if m not in ready and (accuracy >= settings.warm_up_accuracy or last):
                    model = {name: p.detach()[m : m + 1].clone() for name, p in parameters.items()}
                    ready[m] = model, {"step": step, "accuracy": accuracy}
        if len(ready) == len(seeds):
            break
        if stop():
            return None
        _loss(unit, parameters, step).backward()
        optimizer.param_groups[0]["lr"] = settings.warm_up_rate * min(1.0, (step + 1) / RAMP)
        optimizer.step()
        optimizer.zero_grad()
    ordered = [ready[m] for m in range(len(seeds))]
    return models.stack([model for model, _ in ordered]), [record for _, record in ordered]


def _loss(unit: Unit, parameters: Parameters, step: int) -> Tensor:
    """Each model's mean negative log-prob of its answers' tokens, summed."""
    ids, mask = _examples(unit, step, parameters["head"].device)
    width = mask.shape[-1]
    logits = models.logits(parameters, sampling.shape_of(unit), ids[:, :, :-1])[:, :, -width:]
    log_probs = credit.selected_log_probs(logits, ids[:, :, -width:]) * mask
    return (-log_probs.sum((1, 2)) / mask.sum((1, 2))).sum()


def _examples(unit: Unit, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts with right answers [S, N, P + T], and the mask [S, N, T] of the answers and their ends."""
    width = tasks.answer_tokens(unit.task, unit.length)
    ids, mask = [], []
    for seed in unit.seeds:
        purpose = f"warm-up {step} {seed}"
        found = tasks.problems(unit.task, unit.length, unit.settings.warm_up_prompts, purpose)
        answers = tasks.encode([answer for _, answer in found], width)
        ids.append(torch.cat([tasks.encode([prompt for prompt, _ in found]), answers], dim=1))
        lengths = torch.tensor([len(answer) for _, answer in found])
        mask.append(torch.arange(width) <= lengths[:, None])
    return torch.stack(ids).to(device), torch.stack(mask).to(device)
