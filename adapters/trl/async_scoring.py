"""Advantages in the process of TRL's asynchronous trainer that scores the completions of a prompt."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from trl.experimental.async_grpo.async_rollout_worker import TrainingSequence

import credit


def make_loop(kind: type, estimator: credit.Estimator, **arguments: Any) -> Any:
    """TRL's rollout loop of that class, whose samples get the estimator's advantages."""
    loop = kind(**arguments)
    loop._score_group = partial(score_group, loop._score_group, estimator)
    return loop


async def score_group(
    score: Callable[[Any], Awaitable[list[Any]]], estimator: credit.Estimator, group: Any
) -> list[Any]:
    """TRL's samples of a group, one or more per completion, with the estimator's advantages.

    A completion without a token to train makes no sample, but its reward counts, as it does in TRL. So it
    gets an empty sample while TRL scores the group, whose metrics have the rewards.
    """
    absent = TrainingSequence([], [], [], "")
    sequences = [found or [absent] for found in group.completions_sequences]
    samples = await score(replace(group, completions_sequences=sequences))
    rows = [row for row, found in enumerate(sequences) for _ in found]
    rewards = np.full(len(sequences), np.nan)
    rewards[rows] = [sample.metrics["reward"] for sample in samples]
    lengths = [sum(sum(each.completion_mask) for each in found) for found in sequences]
    advantages = compute_advantages(estimator, rewards, lengths)
    for row, sample in zip(rows, samples, strict=True):
        sample.advantage = float(advantages[row])
    return [sample for sample in samples if len(sample.input_ids)]


def compute_advantages(estimator: credit.Estimator, rewards: np.ndarray, lengths: list[int]) -> np.ndarray:
    """A_i [N] of one prompt's completions, from rewards [N], NaN where there is none, and lengths [N]."""
    mask = np.arange(max(1, *lengths)) < np.array(lengths)[:, None]
    rollouts = credit.Rollouts(rewards, np.zeros(len(rewards), dtype=np.int64), mask)
    return estimator(rollouts).advantages[:, 0]
