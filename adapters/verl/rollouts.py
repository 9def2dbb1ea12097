"""From verl's call of an advantage estimator to the rollouts of one of credit's, and back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import credit
from credit.adapters import rules
from credit.adapters.fields import LOGGED, measure_logged
from credit.adapters.verl import options, sessions, settings
from credit.adapters.verl.hooks import FRAMEWORK
from credit.fields import replace_arrays

Tensor = torch.Tensor


@dataclass
class StepContext:
    """What verl's trainer knows of a batch and does not pass to an estimator, and the metrics of its call."""

    keys: Sequence[str]  # {prompt}_{session}_{output}, one per row
    padding: Sequence[bool]  # rows that verl adds to fill a mini-batch
    fields: dict[str, Tensor]  # of Rollouts, by name
    choice: settings.Choice | None = None  # of the trainer; None: parsed from the config of each call
    metrics: dict[str, float] = field(default_factory=dict)


_STEP: ContextVar[StepContext | None] = ContextVar("credit_step", default=None)


@contextmanager
def step_context(step: StepContext) -> Iterator[StepContext]:
    """Gives the step to the estimator that verl calls within the context."""
    token = _STEP.set(step)
    try:
        yield step
    finally:
        _STEP.reset(token)


def set_step(step: StepContext) -> None:
    """Gives the step to the estimator that verl calls next in this context."""
    _STEP.set(step)


def compute_advantages(
    name: str,
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Any = None,
    config: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns [N, T], as verl's registry of estimators asks for them.

    The reward of a response is the sum of its token_level_rewards [N, T]; `index` [N] names its
    prompt; `config` is verl's `algorithm` section. Rows keep their order, and padding rows get 0. An
    estimator without returns of its own gives its advantages in their place, as verl's grpo does.

    Raises:
        ValueError: wrong settings, or statistics that this trainer of verl does not provide.
    """
    if index is None:
        raise ValueError(
            f"{name} needs the prompts' uid, which this trainer does not pass on; use a V1 trainer"
        )
    step = _STEP.get() or StepContext((), [False] * len(response_mask), {})
    choice = step.choice or _check_call(name, config, index)
    estimator = choice.estimator
    rollouts = _make_rollouts(name, estimator, token_level_rewards, response_mask, index, step.fields)
    real = torch.tensor([row for row, padding in enumerate(step.padding) if not padding], dtype=torch.long)
    keys = [step.keys[row] for row in real] if step.keys else None
    chosen = sessions.select_rows(rollouts, real)
    result = sessions.assign_credit(estimator, chosen, keys)
    seen = chosen.mask.bool() & chosen.rewards.isfinite()[:, None]
    logged = {name: array[real] for name, array in step.fields.items() if name in LOGGED}
    step.metrics |= _to_floats(result.metrics | measure_logged(logged, seen))
    returns = estimator.returns(chosen)
    advantages = _place_rows(result.advantages, real, response_mask)
    return advantages, advantages.clone() if returns is None else _place_rows(returns, real, response_mask)


def _check_call(name: str, config: Any, index: Any) -> settings.Choice:
    """The estimator of a call from a trainer whose config nobody could check before."""
    algorithm = {} if config is None else config
    choice = settings.parse_settings({"adv_estimator": name, "credit": algorithm.get("credit")})
    options.refuse_without_effect(choice.estimator, algorithm)
    largest = int(np.unique(index, return_counts=True)[1].max())
    rules.refuse_single_responses(FRAMEWORK, choice.estimator, largest)
    return choice


def _make_rollouts(
    name: str,
    estimator: credit.Estimator,
    token_level_rewards: Tensor,
    mask: Tensor,
    index: Any,
    given: dict[str, Tensor],
) -> credit.Rollouts:
    needs = estimator.required_fields
    fields = {"token_rewards": token_level_rewards} | given
    if "turns" in needs:
        fields["turns"] = credit.tokens.turns(mask)
    absent = [each for each in needs if each not in fields]
    if absent:
        raise ValueError(
            f"{name} needs {', '.join(absent)} of the batch, which only a trainer of credit's "
            "provides: trainer.use_v1=True trainer.v1.trainer_mode=credit_sync"
        )
    rollouts = credit.Rollouts(
        rewards=token_level_rewards.sum(dim=-1),
        groups=torch.from_numpy(np.unique(index, return_inverse=True)[1]).to(mask.device),
        mask=mask,
    )
    return replace_arrays(rollouts, {each: fields[each] for each in needs})


def _place_rows(values: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Values [M, T] at these rows of an array of the mask's shape [N, T], and 0 elsewhere."""
    whole = values.new_zeros(mask.shape)
    whole[rows] = values
    return whole


def _to_floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    values = torch.stack([value.float() for value in metrics.values()]).tolist()
    return {f"credit/{name}": value for name, value in zip(metrics, values, strict=True)}
