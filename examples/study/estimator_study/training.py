"""RL steps of all runs of a unit, side by side: one batch of completions each, and the updates on it."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import credit
from estimator_study import models, sampling, tasks
from estimator_study.models import Parameters
from estimator_study.plan import Unit
from estimator_study.sampling import Batch

Record = dict[str, Any]
OF_ESTIMATOR = ("weight_std", "effective_token_fraction", "zero_variance_groups")
OF_LOSS = ("clip_fraction_low", "clip_fraction_high", "approx_kl")


@dataclass
class State:
    """Where a unit's runs stand."""

    unit: Unit
    parameters: Parameters  # [M, ...], one model per run
    reference: Parameters  # [S, ...], the warm-up checkpoint of each seed
    optimizer: torch.optim.Optimizer
    step: int = 0
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def alive(self) -> list[int]:
        return [run for run in range(len(self.unit.runs)) if run not in self.failed]

    @property
    def done(self) -> bool:
        return self.step == self.unit.settings.steps or not self.alive

    def pack(self) -> Record:
        """All of it as a checkpoint holds it, but for the unit."""
        return {
            "step": self.step,
            "failed": self.failed,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "reference": self.reference,
            "optimizer": self.optimizer.state_dict(),
        }


@dataclass(frozen=True)
class Judged:
    """What a run's estimator made of its completions."""

    estimator: credit.Estimator
    result: credit.Credit
    mask: Tensor  # [N, T]: without the groups that the estimator does not keep


def start(unit: Unit, reference: Parameters) -> State:
    """Every run at its seed's warm-up checkpoint."""
    repeats = len(unit.estimators)
    parameters = {name: p.repeat_interleave(repeats, dim=0).requires_grad_() for name, p in reference.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=unit.settings.learning_rate, weight_decay=0.0)
    return State(unit, parameters, reference, optimizer)


def unpack(unit: Unit, whole: Record) -> State:
    """The runs as they were packed."""
    state = start(unit, whole["reference"])
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(whole["parameters"][name])
    state.optimizer.load_state_dict(whole["optimizer"])
    state.step, state.failed = whole["step"], whole["failed"]
    return state


def step(state: State) -> list[Record]:
    """One batch of completions for every run and the updates on it; failed runs take no further part."""
    settings = state.unit.settings
    purpose = f"step {state.step}"
    batch = sampling.sample(state.unit, state.parameters, settings.prompts, settings.samples, purpose)
    statistics = _statistics(state, batch)
    judged: dict[int, Judged] = {}
    for run in state.alive:
        try:
            judged[run] = _judge(state, run, batch, statistics)
        except Exception as error:  # an estimator's failure is a result, and the other runs go on
            state.failed[run] = f"{type(error).__name__}: {error}"
    norms, metrics = [], {}
    for _ in range(settings.updates):
        metrics = _update(state, batch, statistics, judged)
        norms.append(_apply(state).tolist())
    state.step += 1
    for run in state.alive:
        if not all(math.isfinite(norm[run]) for norm in norms):
            state.failed[run] = f"the gradient's norm was {[norm[run] for norm in norms]}"
    seen = _seen(batch, statistics)
    return [
        {"run": run, "step": state.step, "gradient_norms": [norm[run] for norm in norms]}
        | {name: values[run] for name, values in seen.items()}
        | {name: judged[run].result.metrics[name].item() for name in OF_ESTIMATOR}
        | {name: metrics[run][name].item() for name in OF_LOSS}
        for run in state.alive
    ]


def _seen(batch: Batch, statistics: credit.TokenStatistics) -> dict[str, list[float]]:
    """What the completions of each run look like, whatever its estimator."""
    tokens = batch.mask.sum((1, 2))
    return {
        "reward": batch.rewards.mean(1).tolist(),
        "entropy": sampling.entropy(batch).tolist(),
        "deviation": (statistics.deviation.sum((1, 2)) / tokens).tolist(),
        "sampled_tokens": tokens.tolist(),
    }


def _statistics(state: State, batch: Batch) -> credit.TokenStatistics:
    """Of the sampling policy and the warm-up checkpoint, [M, N, T]."""
    unit = state.unit
    reference = {
        name: p.repeat_interleave(len(unit.estimators), dim=0) for name, p in state.reference.items()
    }
    with torch.no_grad():
        logits = models.logits(reference, sampling.shape_of(unit), batch.inputs)
    logits = logits[:, :, -batch.ids.shape[-1] :]
    return credit.token_statistics(batch.logits, logits, batch.ids, mask=batch.mask)


def _judge(state: State, run: int, batch: Batch, statistics: credit.TokenStatistics) -> Judged:
    settings, unit, device = state.unit.settings, state.unit, batch.ids.device
    estimator = credit.parse(unit.estimators[unit.runs[run][1]])
    groups = torch.arange(settings.prompts, device=device).repeat_interleave(settings.samples)
    fields = {name: value[run] for name, value in statistics._asdict().items()}
    fields["progress"] = torch.tensor(state.step / settings.steps, device=device)
    rollouts = credit.Rollouts(batch.rewards[run], groups, batch.mask[run], **fields)
    return Judged(estimator, estimator(rollouts), batch.mask[run] & estimator.keep(rollouts)[:, None])


def _update(
    state: State, batch: Batch, statistics: credit.TokenStatistics, judged: dict[int, Judged]
) -> dict[int, dict[str, Tensor]]:
    """Gradients of every living run's own loss; returns the losses' metrics."""
    logits = models.logits(state.parameters, sampling.shape_of(state.unit), batch.inputs)
    log_probs = credit.selected_log_probs(logits[:, :, -batch.ids.shape[-1] :], batch.ids)
    total, metrics = 0.0 * log_probs.sum(), {}
    for run, one in judged.items():
        loss, metrics[run] = _loss_of(one.estimator, state.unit)(
            log_probs[run], statistics.log_probs[run], one.result.advantages, one.mask
        )
        total = total + loss
    total.backward()
    return metrics


def _loss_of(estimator: credit.Estimator, unit: Unit) -> credit.PolicyLoss:
    """The estimator's own loss, with the longest answer where it divides by a length that is not set."""
    loss = estimator.loss
    if loss.aggregation != "fixed_horizon" or loss.horizon is not None:
        return loss
    return loss.model_copy(update={"horizon": tasks.answer_tokens(unit.task, unit.length)})


def _apply(state: State) -> Tensor:
    """One optimiser step with each model's gradient cut to the largest norm; returns the norms [M].

    A model whose gradient is not finite stays as it is.
    """
    gradients = [p.grad for p in state.parameters.values()]
    norms = sum(g.flatten(1).square().sum(1) for g in gradients).sqrt()
    scale = (state.unit.settings.largest_gradient / (norms + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.ndim - 1))).nan_to_num_(0.0, 0.0, 0.0)
    state.optimizer.step()
    state.optimizer.zero_grad()
    return norms
