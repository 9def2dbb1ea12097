"""What the steps of Tunix's agents say of single tokens: their turns, and the rewards of these."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tunix.rl.agentic.trajectory.trajectory_collect_engine import TrajectoryCollectEngine

STEPS = "credit_steps"


class Step(NamedTuple):
    """A step of an agent: the tokens that it chose, those of the environment's answer, and its reward."""

    chosen: int
    answered: int
    reward: float


class StepCollectEngine(TrajectoryCollectEngine):
    """Tunix's engine, whose trajectories of tokens also say where each step lies and what it earned."""

    async def collect(self, mode: str = "Conversation") -> Any:
        found = await super().collect(mode)
        if isinstance(found, dict):
            found[STEPS] = [_measure_step(step) for step in self.agent.trajectory.steps]
        return found


def _measure_step(step: Any) -> Step:
    chosen, answered = (0 if each is None else len(each) for each in (step.assistant_tokens, step.env_tokens))
    return Step(chosen, answered, float(step.reward))


def number_turns(rows: Sequence[Sequence[Step]], width: int) -> np.ndarray:
    """The step [N, T] of each token; those behind the last step's have its number."""
    turns = np.zeros((len(rows), width), np.int64)
    for row, steps in zip(turns, rows, strict=True):
        numbers = np.repeat(np.arange(len(steps)), [step.chosen + step.answered for step in steps])[:width]
        row[: len(numbers)] = numbers
        row[len(numbers) :] = numbers[-1] if len(numbers) else 0
    return turns


def place_rewards(rows: Sequence[Sequence[Step]], mask: np.ndarray) -> np.ndarray:
    """Each step's reward on the last token that it chose, [N, T].

    Where that was cut off, or a step chose none, it lies on the last token before that is in the mask;
    where there is none, on no token.
    """
    rewards, width = np.zeros(mask.shape), mask.shape[1]
    for row, chosen, steps in zip(rewards, mask, rows, strict=True):
        start = 0
        for step in steps:
            places = np.flatnonzero(chosen[: min(start + step.chosen, width)])
            if len(places):
                row[places[-1]] += step.reward
            start += step.chosen + step.answered
    return rewards


def list_steps(trajectories: Sequence[Any]) -> list[list[Step]]:
    """The steps of each trajectory; one that was not collected by our engine has its tokens as one step."""
    return [_steps_of(item.traj) for item in trajectories]


def _steps_of(trajectory: Mapping[str, Any]) -> list[Step]:
    if STEPS in trajectory:
        return list(trajectory[STEPS])
    reward = trajectory.get("trajectory_reward") or 0.0
    return [Step(len(trajectory["conversation_tokens"]), 0, float(reward))]
