"""An agent in the form of OpenRLHF's own example: two turns, of which the last is rewarded."""

import torch
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor


class AgentInstance(AgentInstanceBase):
    def __init__(self, *_, **__):
        self.turn = 0

    async def reset(self, states, **_):
        return {"observation": states["observation"]}

    async def step(self, states, **_):
        self.turn += 1
        done = self.turn == 2
        text = states["action_text"]
        share = sum(c in "01234" for c in text) / max(len(text), 1)
        reward = torch.tensor([share]) if done else torch.tensor(0.0)
        return {
            "rewards": reward,
            "scores": reward,
            "environment_feedback": "" if done else "9>",
            "done": done,
            "sampling_params": states.get("sampling_params"),
            "extra_logs": {"low_share": reward},
        }


class AgentExecutor(MultiTurnAgentExecutor):
    def __init__(self):
        super().__init__(AgentInstance)
