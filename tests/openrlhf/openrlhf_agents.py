"""Agents as OpenRLHF's users write them, and an engine that gives them the texts of a script."""

import asyncio
import math
from types import SimpleNamespace

import numpy as np
import tiny_model
import torch
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor

TOKENIZER = tiny_model.character_tokenizer()


def scripted(*steps):
    """An executor whose agents earn and answer by script: (reward, feedback, done) per step."""

    class Agent(AgentInstanceBase):
        def __init__(self):
            self.left = iter(steps)

        async def step(self, states, **_):
            await asyncio.sleep(0)  # so that the samples of a prompt take turns
            reward, feedback, done = next(self.left)
            return {"rewards": reward, "environment_feedback": feedback, "done": done}

    return MultiTurnAgentExecutor(Agent)


class Engine:
    """Answers with the texts in turn, as vLLM does with what it samples."""

    def __init__(self, *texts):
        self.left = list(texts)

    async def generate(self, tokens, params, multi_modal_data=None):
        await asyncio.sleep(0)
        text = self.left.pop(0)
        ids = TOKENIZER(text, add_special_tokens=False)["input_ids"][: params.max_tokens]
        output = SimpleNamespace(token_ids=ids, text=text, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


def run(executor, *texts, prompt="1+2", max_length=100):
    """What the executor hands to OpenRLHF's sampler for one episode."""
    params = SimpleNamespace(max_tokens=None, logprobs=None)
    given = {"prompt": prompt, "label": "", "sampling_params": params, "max_length": max_length}
    return asyncio.run(executor.execute(**given, hf_tokenizer=TOKENIZER, llm_engine=Engine(*texts)))


class Bonus(MultiTurnAgentExecutor):
    """A user's executor that adds to what OpenRLHF's returns."""

    async def execute(self, *args, **named):
        response = await super().execute(*args, **named)
        return response | {"reward": response["reward"] + 8.0}


def number(value):
    """A reward as OpenRLHF's examples return it."""
    return torch.tensor(value)


def answer(tokens, ranges, reward):
    """A response of an executor of the user's own."""
    made = {"observation_tokens": tokens, "action_ranges": ranges, "reward": reward, "scores": reward}
    return made | {"rollout_log_probs": None, "prompt": "a", "label": "b"}


def compute_turns(outcomes, turns, turn_weight=1.0, eps=1e-6):
    """MT-GRPO's advantage of each turn of one prompt's samples, in float64."""

    def standardize(values):
        values = np.array(values, np.float64)
        if len(values) < 2:
            return np.zeros(len(values))
        return (values - values.mean()) / (values.std(ddof=1) + eps)

    valid = [i for i, own in enumerate(turns) if all(map(math.isfinite, own))]
    whole = dict(zip(valid, standardize([outcomes[i] for i in valid]), strict=True))
    found = {i: [whole[i]] * len(turns[i]) for i in valid}
    for k in range(max(map(len, turns))):
        having = [i for i in valid if k < len(turns[i])]
        for i, own in zip(having, standardize([turns[i][k] for i in having]), strict=True):
            found[i][k] += turn_weight * own
    return [found.get(i, [0.0] * len(own)) for i, own in enumerate(turns)]
