"""An agent of up to three turns, as users write one: it logs nothing of what its turns earn.

For the test alone, each episode writes down what its steps earned, into the folder WITNESS.
"""

import itertools
import json
import os
import random
from pathlib import Path

import torch
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor

NUMBERS = itertools.count()


class AgentInstance(AgentInstanceBase):
    def __init__(self, *args, **kwargs):
        self.number = next(NUMBERS)
        self.random = random.Random(self.number)
        self.turns = self.random.randint(1, 3)
        self.earned = []

    async def step(self, states, **kwargs):
        """Half of the turns get no answer, so that the next one follows at once."""
        reward = self.random.choice([0.0, 0.25, 1.0])
        self.earned.append(reward)
        done = len(self.earned) == self.turns
        written = json.dumps({"earned": self.earned, "done": done})
        Path(os.environ["WITNESS"], f"episode_{self.number}.json").write_text(written)
        return {
            "rewards": torch.tensor([reward]),
            "environment_feedback": "" if done or self.random.random() < 0.5 else "=+",
            "done": done,
            "extra_logs": {"episode": self.number},
        }


class AgentExecutor(MultiTurnAgentExecutor):
    def __init__(self):
        super().__init__(AgentInstance)
