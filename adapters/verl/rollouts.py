"""From verl's call of an advantage estimator to the rollouts of one of credit's, and back."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

import credit
from credit.adapters import rules
from credit.adapters.fields import LOGGED, list_compared, measure_logged
from credit.adapters.sessions import assign_credit, select_rows
from credit.adapters.verl import rewards, settings, turns
from credit.adapters.verl.hooks import FRAMEWORK
from credit.adapters.verl.sessions import find_last_rows
from credit.fields import replace_arrays
from credit.several_rewards import find_scored_rows

Tensor = torch.Tensor
logger = logging.getLogger("credit")


@dataclass
class StepContext:
    """What verl's trainer knows of a batch and does not pass to an estimator, and the metrics of its call."""

    keys: Sequence[str]  # {prompt}_{session}_{output}, one per row
    padding: Sequence[bool]  # rows that verl adds to fill a mini-batch
    fields: dict[str, Tensor]  # of Rollouts, by name
    choice: settings.Choice | None = None  # of the trainer; None: parsed from the config of each call
    mask: Tensor | None = None  # the agent loop's [N, T], from which verl has not rejected tokens yet
    metrics: dict[str, float] = field(default_factory=dict)
    valid: Tensor | None = None  # [N], bool: rows that took part in the call, or are padding
    once: bool = False  # for the next call alone, so that no later one gets another batch's


class Outcome(NamedTuple):
    """A call of an estimator, for credit.lens."""

    rows: Tensor  # [M], those of verl's batch that are no padding
    rollouts: credit.Rollouts  # of these rows, as the estimator got them
    result: credit.Credit
    turns: Tensor  # [M, T], of the mask before rejection
    known: Mapping[str, Tensor]  # further arrays of all rows, by name


_STEP: ContextVar[StepContext | None] = ContextVar("credit_step", default=None)
_OUTCOME: ContextVar[Outcome | None] = ContextVar("credit_outcome", default=None)


@contextmanager
def step_context(step: StepContext) -> Iterator[StepContext]:
    """Gives the step to the estimator that verl calls within the context."""
    token = _STEP.set(step)
    try:
        yield step
    finally:
        _STEP.reset(token)


def set_step(step: StepContext | None) -> None:
    """Gives the step to the estimator that verl calls next in this context."""
    _STEP.set(step)


def _take_step(rows: int) -> StepContext:
    """The step of this call; one without padding or fields if nothing has given any."""
    step = _STEP.get()
    if step is not None and step.once:
        _STEP.set(None)
    return step or StepContext((), [False] * rows, {})


def take_outcome() -> Outcome | None:
    """The last call in this context, once; None: there was none, or the config lets nothing be recorded."""
    outcome = _OUTCOME.get()
    _OUTCOME.set(None)
    return outcome


def compute_advantages(
    name: str,
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Any = None,
    config: Any = None,
    reward_baselines: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns [N, T], as verl's registry of estimators asks for them.

    The reward of a response is the sum of its token_level_rewards [N, T], which are also its token_rewards;
    `index` [N] names its prompt; `config` is verl's `algorithm` section; reward_baselines [N] are the
    rewards of greedy responses. Rows keep their order, and padding rows get 0. An estimator without returns
    of its own gives its advantages in their place, as verl's grpo does. They are float32, whatever the
    rewards are; rewards of float64 keep their digits until then.

    Raises:
        ValueError: wrong settings, or something that this trainer of verl does not provide.
    """
    if index is None:
        raise ValueError(
            f"{name} needs the prompts' uid, which this trainer does not pass on; set trainer.use_v1=True"
        )
    step = _take_step(len(response_mask))
    choice = step.choice or _check_call(name, config, index)
    of_tokens = token_level_rewards.to(torch.promote_types(token_level_rewards.dtype, torch.float32))
    given = {"token_rewards": of_tokens}
    if not choice.reward_keys:
        given["rewards"] = of_tokens.sum(dim=-1)
    if reward_baselines is not None:
        given["baseline_rewards"] = reward_baselines
    given |= step.fields
    if "turns" in choice.estimator.required_fields:
        given |= _place_turns(given, response_mask if step.mask is None else step.mask)
    rollouts = _make_rollouts(name, choice.estimator, response_mask, index, given)
    return _assign_credit(choice, rollouts, step)


def _assign_credit(
    choice: settings.Choice, rollouts: credit.Rollouts, step: StepContext
) -> tuple[Tensor, Tensor]:
    """Advantages and returns [N, T] of the rows that are no padding, and 0 in the others."""
    estimator = choice.estimator
    real = torch.tensor([row for row, padding in enumerate(step.padding) if not padding], dtype=torch.long)
    keys = [step.keys[row] for row in real] if step.keys else None
    chosen = select_rows(rollouts, real)
    before = (chosen.mask if step.mask is None else step.mask[real]).bool()
    if chosen.token_rewards is not None:
        chosen = _count_rejected(estimator, chosen, before)
    last = find_last_rows(keys, len(chosen.mask))
    result = assign_credit(estimator, chosen, last)
    scored = find_scored_rows(chosen.rewards)
    seen = chosen.mask.bool() & scored[:, None]
    step.valid = torch.ones(len(rollouts.mask), dtype=torch.bool)
    step.valid[real] = scored[last].cpu()
    logged = {name: array[real] for name, array in step.fields.items() if name in LOGGED}
    step.metrics |= _to_floats(result.metrics | measure_logged(logged, seen))
    if choice.record_steps is not None:
        _OUTCOME.set(Outcome(real, chosen, result, credit.tokens.turns(before), step.fields))
    returns = estimator.returns(chosen)
    advantages = _place_rows(result.advantages, real, rollouts.mask)
    return advantages, advantages.clone() if returns is None else _place_rows(returns, real, rollouts.mask)


def _count_rejected(estimator: credit.Estimator, chosen: credit.Rollouts, before: Tensor) -> credit.Rollouts:
    """The rollouts with the rewards of rejected tokens on tokens that were kept."""
    given = chosen.token_rewards
    if ((given != 0) & ~before).any():
        _warn_of_lost_rewards(estimator.name)
    moved = turns.move_rejected(given, before, chosen.mask.bool(), chosen.turns)
    return chosen._replace(token_rewards=moved)


@cache
def _warn_of_lost_rewards(name: str) -> None:
    logger.warning(
        "some token_level_rewards lie outside the response_mask, as on the output of a tool, where %s does "
        "not read them, nor does verl; let the agent loop end with a token of the policy, or, of an "
        "estimator that has it, set +algorithm.credit.rewards_from=response",
        name,
    )


def _place_turns(given: Mapping[str, Tensor], before: Tensor) -> dict[str, Tensor]:
    """The turns [N, T] of the mask before rejection, and the states at their ends if they are given."""
    states, found = given.get("extra.states"), {"turns": credit.tokens.turns(before)}
    return found if states is None else found | {"extra.states": turns.spread_ends(states, before.bool())}


def _check_call(name: str, config: Any, index: Any) -> settings.Choice:
    """The estimator of a call from a trainer whose config nobody could check before."""
    algorithm = {} if config is None else config
    own = {"adv_estimator": name, "credit": algorithm.get("credit")}
    choice = settings.parse_settings(own | {option: algorithm.get(option) for option in rewards.OPTIONS})
    settings.refuse_without_effect(choice.estimator, algorithm)
    rewards.refuse_rejection(choice.estimator, algorithm)
    largest = int(np.unique(index, return_counts=True)[1].max())
    rules.refuse_single_responses(FRAMEWORK, choice.estimator, largest)
    return choice


def _make_rollouts(
    name: str, estimator: credit.Estimator, mask: Tensor, index: Any, given: Mapping[str, Tensor]
) -> credit.Rollouts:
    needs = estimator.required_fields
    absent = [each for each in ("rewards", *needs) if each not in given]
    if absent:
        raise ValueError(
            f"{name} needs {', '.join(absent)}, which this trainer does not hand to estimators; verl's V1 "
            "trainers do, and statistics of tokens come with trainer.v1.trainer_mode=credit_sync"
        )
    rollouts = credit.Rollouts(
        rewards=given["rewards"],
        groups=torch.from_numpy(np.unique(index, return_inverse=True)[1]).to(mask.device),
        mask=mask,
    )
    compared = (each for each in list_compared(estimator) if each in given)
    return replace_arrays(rollouts, {each: given[each] for each in (*needs, *compared)})


def _place_rows(values: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Values [M, T] at these rows of a float32 array of the mask's shape [N, T], and 0 elsewhere."""
    whole = values.new_zeros(mask.shape, dtype=torch.float32)
    whole[rows] = values.float()
    return whole


def _to_floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    values = torch.stack([value.float() for value in metrics.values()]).tolist()
    return {f"credit/{name}": value for name, value in zip(metrics, values, strict=True)}
