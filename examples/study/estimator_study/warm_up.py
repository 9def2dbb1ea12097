"""Supervised steps on right answers until sampling finds one often enough for RL to start from."""

from typing import Any

import torch
from torch import Tensor

import credit
from estimator_study import models, sampling, tasks
from estimator_study.models import Parameters
from estimator_study.plan import Unit

RAMP = 50  # steps over which the learning rate rises
LOOK_EVERY = 5
LOOK_AT = 128  # held-out prompts


class WarmUp:
    """The models of a unit's seeds [S, ...] on their way, and those that are ready, by number of the seed."""

    def __init__(self, unit: Unit, device: torch.device, whole: dict[str, Any] | None = None):
        """From fresh models, or from what was packed."""
        shape, seeds = sampling.shape_of(unit), unit.seeds
        fresh = [models.initial(shape, torch.Generator().manual_seed(seed)) for seed in seeds]
        parameters = models.stack(fresh) if whole is None else whole["parameters"]
        self.unit = unit
        self.parameters = {name: p.to(device).requires_grad_() for name, p in parameters.items()}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), weight_decay=0.01)
        self.step = 0
        self.ready: dict[int, tuple[Parameters, dict[str, float]]] = {}
        if whole is not None:
            self.optimizer.load_state_dict(whole["optimizer"])
            self.step, self.ready = whole["step"], whole["ready"]

    @property
    def done(self) -> bool:
        return len(self.ready) == len(self.unit.seeds)

    def pack(self) -> dict[str, Any]:
        """All of it as a checkpoint holds it, but for the unit."""
        return {
            "step": self.step,
            "ready": self.ready,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
        }

    def advance(self) -> None:
        """Looks whose models are ready, where it is time to, and takes a step for the others.

        A seed whose model never reaches the accuracy keeps the last one; the caller sees it by the number.
        """
        settings = self.unit.settings
        last = self.step == settings.warm_up_steps
        if self.step % LOOK_EVERY == 0 or last:
            found = sampling.sample(self.unit, self.parameters, LOOK_AT, 1, "warm-up", held_out=True)
            for m, accuracy in enumerate(found.rewards.mean(1).tolist()):
                if m not in self.ready and (accuracy >= settings.warm_up_accuracy or last):
                    model = {name: p.detach()[m : m + 1].clone() for name, p in self.parameters.items()}
                    self.ready[m] = model, {"step": self.step, "accuracy": accuracy}
        if self.done:
            return
        _loss(self.unit, self.parameters, self.step).backward()
        self.optimizer.param_groups[0]["lr"] = settings.warm_up_rate * min(1.0, (self.step + 1) / RAMP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def result(self) -> tuple[Parameters, list[dict[str, float]]]:
        """One model per seed [S, ...], and when each reached which accuracy."""
        ordered = [self.ready[m] for m in range(len(self.unit.seeds))]
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
