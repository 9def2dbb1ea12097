"""Agents of two turns for Tunix's agentic learner."""

import numpy as np
from tunix.rl.agentic.environments.base_environment import BaseTaskEnv, EnvStepResult

GROUP, WIDTH = 4, 24


def low_share(text):
    return sum(c in "01234" for c in text) / max(len(text), 1)


class TwoTurns(BaseTaskEnv):
    """Rewards the low digits of each answer, the second time by half, and asks once more."""

    def __init__(self, task, **named):
        super().__init__(max_steps=2, **named)
        self.task = task

    def _initial_observation(self):
        return self.task

    def _step_impl(self, action):
        last = self.step_count >= self.max_steps
        text = getattr(action, "action", action)
        return EnvStepResult("+7>", low_share(text) / (1 + last), last, {})


class Plain:
    """A chat parser that leaves the messages as they are."""

    assistant_token = ""

    def parse(self, messages, add_generation_prompt=False, is_first_msg=False):
        return "".join(str(np.ravel(message["content"])[0]) for message in messages if message["content"])
