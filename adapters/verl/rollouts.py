"""credit's estimators as verl's advantage estimators: credit_grpo, credit_dgpo, ..."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

import credit
from credit.adapters import hooks

SUPPORTED = ">=0.9.1,<0.10"
hooks.check_version("verl", SUPPORTED)

from verl.trainer.ppo import core_algos  # noqa: E402

from credit.adapters.verl import sessions, settings  # noqa: E402

hooks.check_signature("verl", core_algos, "register_adv_est", "name_or_enum")
Tensor = torch.Tensor


@dataclass
class StepContext:
    """What verl's trainer knows of a batch and does not pass to an estimator, and what comes back."""

    keys: Sequence[str]  # {prompt}_{session}_{output}, one per row
    padding: Sequence[bool]  # rows that verl made up to fill a mini-batch
    fields: dict[str, Tensor]  # of Rollouts, by name
    metrics: dict[str, float] = field(default_factory=dict)


_STEP: ContextVar[StepContext | None] = ContextVar("credit_step", default=None)


@contextmanager
def step_context(step: StepContext) -> Iterator[StepContext]:
    """Gives the step to the estimator that verl calls meanwhile."""
    token = _STEP.set(step)
    try:
        yield step
    finally:
        _STEP.reset(token)


def register_estimators() -> None:
    """Registers every estimator of credit that verl does not know yet."""
    for name in credit.names():
        if settings.PREFIX + name not in core_algos.ADV_ESTIMATOR_REGISTRY:
            function = partial(compute_advantages, settings.PREFIX + name)
            core_algos.register_adv_est(settings.PREFIX + name)(function)


def compute_advantages(
    name: str,
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Any = None,
    config: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """The advantages [N, T], twice, as verl wants them (advantages and returns).

    The reward of a response is the sum of its token_level_rewards [N, T]; `index` [N] names its
    prompt; `config` is verl's `algorithm` section. Rows are neither reordered nor left out.

    Raises:
        ValueError: wrong settings, or statistics that this trainer of verl does not provide.
    """
    step = _STEP.get()
    chosen = settings.parse_settings({"adv_estimator": name, "credit": (config or {}).get("credit")})
    if index is None:
        raise ValueError(f"{name} needs the prompts' uid, which this trainer does not pass on")
    if step is None:
        step = StepContext((), [False] * len(response_mask), {})
    needs = chosen.estimator.required_fields
    fields = step.fields | ({"turns": credit.tokens.turns(response_mask)} if "turns" in needs else {})
    absent = [each for each in needs if each not in fields]
    if absent:
        raise ValueError(
            f"{name} needs {', '.join(absent)} of every token, which only a trainer of credit's "
            "provides: trainer.use_v1=True trainer.v1.trainer_mode=credit_sync"
        )
    real = torch.tensor([row for row, made_up in enumerate(step.padding) if not made_up], dtype=torch.long)
    rollouts = credit.Rollouts(
        rewards=token_level_rewards.sum(dim=-1),
        groups=torch.from_numpy(np.unique(index, return_inverse=True)[1]).to(response_mask.device),
        mask=response_mask,
        **{each: fields[each] for each in needs},
    )
    keys = [step.keys[row] for row in real] if step.keys else None
    result = sessions.assign_credit(chosen.estimator, sessions.select_rows(rollouts, real), keys)
    step.metrics |= _to_floats(result.metrics)
    whole = result.advantages.new_zeros(response_mask.shape)
    whole[real] = result.advantages
    return whole, whole.clone()


def _to_floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    values = torch.stack([value.float() for value in metrics.values()]).tolist()
    return {f"credit/{name}": value for name, value in zip(metrics, values, strict=True)}


register_estimators()
