"""The turns of a response, and what each earned, as arrays of its action tokens."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import Any

import torch

import credit
from credit.adapters.openrlhf.agents import STEPS
from credit.adapters.openrlhf.hooks import FRAMEWORK
from credit.adapters.readings import NAME, Reading, find_shared_reading

Tensor = torch.Tensor
Ranges = Sequence[tuple[int, int]]
TURNS = "turns"
BEFORE = "turns.reward"  # before OpenRLHF's length penalties; None where the user gave the tokens' rewards
OUTCOME = "turns.outcome"  # what of it is not in token_rewards


def number_turns(ranges: Ranges, length: int) -> list[int]:
    """The turn of each action token that OpenRLHF keeps of a response, numbered from 0.

    By the ranges themselves, since two turns with nothing between them are one run of the mask. A turn
    without tokens has no number.
    """
    sizes = [size for size in _count_kept(ranges, length) if size]
    return list(chain.from_iterable([number] * size for number, size in enumerate(sizes)))


def take_rows(
    estimator: credit.Estimator, response: Mapping[str, Any], length: int, every: bool
) -> dict[str, Any]:
    """What a response says of its turns, of what the estimator reads; `length` is that of its tokens.

    With `every` their numbers are given also where it does not read them.
    """
    found: dict[str, Any] = {}
    if every or TURNS in estimator.required_fields:
        found[TURNS] = number_turns(response["action_ranges"], length)
    if NAME in estimator.required_fields:
        if NAME in (response.get("extra_logs") or {}):
            found |= {BEFORE: None, OUTCOME: None}
        else:
            found |= take_rewards(estimator, response, length)
    return found


def take_rewards(estimator: credit.Estimator, response: Mapping[str, Any], length: int) -> dict[str, Any]:
    """The rewards of a response's action tokens, from its agent's steps.

    Raises:
        ValueError: nobody saw the steps, or they are others than the response's turns.
    """
    steps, ranges = _find_steps(estimator, response), response["action_ranges"]
    given = float("nan") if response["reward"] is None else response["reward"]
    reward, before = float(given), torch.tensor([given]).item()  # in the precision that OpenRLHF keeps
    if not isfinite(reward):  # the row takes no part
        return {NAME: [0.0] * sum(_count_kept(ranges, length)), BEFORE: before, OUTCOME: reward}
    earned = [step.reward for step in steps]
    rest = reward - sum(earned)  # what an executor of the user's adds
    if _find_reading(estimator) == "tokens":
        own = place_rewards(earned, ranges, length)
        return {NAME: _add_to_last(own, rest), BEFORE: before, OUTCOME: None}
    of_turns = [0.0 if step.done else step.reward for step in steps]
    last = sum(step.reward for step in steps if step.done)
    return {NAME: place_rewards(of_turns, ranges, length), BEFORE: before, OUTCOME: last + rest}


def place_rewards(earned: Sequence[float], ranges: Ranges, length: int) -> list[float]:
    """A reward for each action token that is kept: what a turn earned, on its last one.

    What a turn without tokens earned lies on the last token before it, where there is one.
    """
    sizes = _count_kept(ranges, length)
    placed, seen = [0.0] * sum(sizes), 0
    for reward, size in zip(earned, sizes, strict=True):
        seen += size
        if seen:
            placed[seen - 1] += reward
    return placed


def settle_rewards(
    estimator: credit.Estimator, rows: Mapping[str, Sequence[Any]], rewards: Tensor
) -> tuple[list[list[float]], dict[str, Tensor]]:
    """Rows of token_rewards, and the `rewards` [N] beside them where they are others than OpenRLHF's.

    No reward counts twice: `rewards` are the outcome alone for estimators that add the two. OpenRLHF's
    length penalties belong to the outcome; where an estimator reads token_rewards alone, they lie on the
    last token.

    Args:
        rows: under NAME, BEFORE and OUTCOME, what `take_rewards` gave for each response.
        rewards: [N], after the penalties.
    """
    before = [reward if given is None else given for given, reward in zip(rows[BEFORE], rewards, strict=True)]
    penalties = rewards - torch.tensor(before, dtype=rewards.dtype)
    if _find_reading(estimator) == "tokens":
        added = penalties.nan_to_num(0.0, 0.0, 0.0).tolist()
        return [_add_to_last(row, each) for row, each in zip(rows[NAME], added, strict=True)], {}
    given = [reward if out is None else out for out, reward in zip(rows[OUTCOME], rewards, strict=True)]
    return list(rows[NAME]), {"rewards": torch.tensor(given, dtype=rewards.dtype) + penalties}


def _find_steps(estimator: credit.Estimator, response: Mapping[str, Any]) -> Sequence[Any]:
    name, way_out = FRAMEWORK.name_of(estimator), _way_out()
    if STEPS not in response:
        raise ValueError(
            f"{name} needs {NAME}, which credit takes from the steps of OpenRLHF's MultiTurnAgentExecutor, "
            f"and this response comes from no `execute` of it; {way_out}"
        )
    steps: Sequence[Any] = response[STEPS]
    if len(steps) != len(response["action_ranges"]):
        raise ValueError(
            f"{name} needs {NAME}, and an agent's response has {len(response['action_ranges'])} "
            f"action_ranges, while {len(steps)} of its steps were seen; {way_out}"
        )
    return steps


def _way_out() -> str:
    return (
        f"return them as extra_logs[{NAME!r}] of the reward function or of the agent's last step, a list of "
        "one number per action token"
    )


def _find_reading(estimator: credit.Estimator) -> Reading:
    return find_shared_reading(estimator, "the steps of an agent are rewarded one by one", _way_out())


def _count_kept(ranges: Ranges, length: int) -> list[int]:
    """How many tokens of each turn are in OpenRLHF's mask, which starts at the second token."""
    return [max(min(end, length) - max(start, 1), 0) for start, end in ranges]


def _add_to_last(row: Sequence[float], value: float) -> list[float]:
    return [*row[:-1], row[-1] + value] if row else []
