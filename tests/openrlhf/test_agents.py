"""The rewards of an agent's turns: from OpenRLHF's own executor to arrays of its action tokens."""

import asyncio
from types import SimpleNamespace

import numpy as np
import openrlhf_agents as agents
import pytest
import torch
from openrlhf.utils import agent as theirs

import credit
from credit.adapters.openrlhf import extra
from credit.adapters.openrlhf.agents import STEPS
from credit.adapters.openrlhf.turns import BEFORE, OUTCOME, settle_rewards

NAME = "--algo.advantage.estimator"
MT = [NAME, "mt_grpo"]
ROWS = ("token_rewards", BEFORE, OUTCOME)
reward = agents.number


def rows(sampler, response, name, **given):
    (row,) = sampler._process_response_into_experience(response, **given).info[extra.KEY + name]
    return row


TWO = [(reward(0.25), "[+]", False), (reward([1.5]), "", True)]


@pytest.mark.parametrize("name", ["mt_grpo", "process_grpo"])
def test_each_turns_reward_lies_on_its_last_token(recording, sampler, name):
    """mt_grpo adds the outcome itself, and process_grpo reads rewards of turns alone."""
    response = agents.run(agents.scripted(*TWO), "12", "345")
    assert response["reward"] == 1.75
    found = rows(sampler(NAME, name), response, "token_rewards")
    last = {"mt_grpo": 0.0, "process_grpo": 1.5}[name]
    assert found == [0.0, 0.25, 0.0, 0.0, last]


def test_turns_with_nothing_between_them_stay_apart(recording, sampler):
    steps = [(reward(1), "", False), (reward(2), "", False), (reward(4), "", True)]
    response = agents.run(agents.scripted(*steps), "12", "3", "45")
    found = sampler(*MT)
    assert rows(found, response, "turns") == [0, 0, 1, 2, 2]
    assert rows(found, response, "token_rewards") == [0.0, 1.0, 2.0, 0.0, 0.0]
    assert rows(found, response, "turns.outcome") == 4.0


def test_a_turn_without_tokens_leaves_its_reward_on_the_token_before(recording, sampler):
    steps = [(reward(8.0), "+", False), *((reward(float(k)), "+", k == 3) for k in (1, 2, 3))]
    response = agents.run(agents.scripted(*steps), "", "12", "", "3")
    found = sampler(NAME, "process_grpo")
    assert rows(found, response, "token_rewards") == [0.0, 3.0, 3.0]  # nothing was done for the 8
    assert rows(found, response, "turns") == [0, 0, 1]


def test_an_episode_that_its_budget_ends_has_no_outcome(recording, sampler):
    steps = [(reward(0.5), "+++++", False), (reward(9.0), "", True)]
    response = agents.run(agents.scripted(*steps), "12", max_length=8)
    assert len(response["observation_tokens"]) == 10
    found = sampler(*MT)
    assert rows(found, response, "token_rewards", max_len=8) == [0.0, 0.5]
    assert rows(found, response, "turns.outcome", max_len=8) == 0.0


@pytest.mark.parametrize(
    ("kept", "expected"), [(100, [0.0, 1.0, 0.0, 2.0, 4.0]), (7, [0.0, 1.0, 6.0]), (5, [0.0, 7.0])]
)
def test_what_openrlhf_cuts_off_counts_for_the_last_token_that_it_keeps(recording, sampler, kept, expected):
    """As an executor may that does not mind the budget: 3 of prompt, 2 and 2 and 1 of actions, + between."""
    steps = [(reward(1.0), "+", False), (reward(2.0), "+", False), (reward(4.0), "", True)]
    response = agents.run(agents.scripted(*steps), "12", "34", "5")
    assert rows(sampler(NAME, "process_grpo"), response, "token_rewards", max_len=kept) == expected


def test_samples_of_a_prompt_at_once_keep_their_steps_apart(recording):
    async def together():
        scripts = [[(reward(float(10 * i + k)), "+", k == i) for k in range(i + 1)] for i in range(4)]
        params = {"sampling_params": SimpleNamespace(max_tokens=None, logprobs=None), "max_length": 99}
        given = params | {"hf_tokenizer": agents.TOKENIZER, "prompt": "1", "label": ""}
        episodes = (
            agents.scripted(*script).execute(**given, llm_engine=agents.Engine(*"1234")) for script in scripts
        )
        return await asyncio.gather(*episodes)

    found = asyncio.run(together())
    assert [[s.reward for s in each[STEPS]] for each in found] == [
        [0],
        [10, 11],
        [20, 21, 22],
        [*range(30, 34)],
    ]
    assert [[s.done for s in each[STEPS]] for each in found] == [[False] * i + [True] for i in range(4)]


def test_a_step_that_calls_its_bases_is_one_step(recording):
    base = agents.scripted(*TWO).agent_instance_cls

    class Doubled(base):
        async def step(self, states, **named):
            result = await super().step(states, **named)
            return result | {"rewards": 2 * result["rewards"]}

    for kind, factor in ((base, 1), (Doubled, 2), (base, 1)):
        response = agents.run(theirs.MultiTurnAgentExecutor(kind), "12", "345")
        assert [step.reward for step in response[STEPS]] == [0.25 * factor, 1.5 * factor]


def test_a_tensor_that_an_agent_adds_to_is_read_when_it_is_returned(recording):
    class Counting(theirs.AgentInstanceBase):
        def __init__(self):
            self.total = torch.zeros(1)

        async def step(self, states, **_):
            self.total += 1
            return {"rewards": self.total, "environment_feedback": "+", "done": self.total.item() == 3}

    response = agents.run(theirs.MultiTurnAgentExecutor(Counting), "1", "2", "3")
    assert [step.reward for step in response[STEPS]] == [1.0, 2.0, 3.0]
    assert response["reward"] == 6.0


def test_what_an_executor_of_the_users_adds_is_of_the_outcome(recording, sampler):
    response = agents.run(agents.Bonus(agents.scripted(*TWO).agent_instance_cls), "12", "345")
    assert rows(sampler(*MT), response, "turns.outcome") == 9.5
    assert rows(sampler(NAME, "process_grpo"), response, "token_rewards")[-1] == 9.5


@pytest.mark.parametrize("kind", [np.float64, np.float32, float])
def test_a_reward_that_nothing_is_subtracted_from_leaves_the_outcome_exact(recording, sampler, parse, kind):
    """OpenRLHF keeps float64 of numpy and rounds a Python float; rows of both may meet in a batch."""

    class Kind(theirs.MultiTurnAgentExecutor):
        async def execute(self, *args, **named):
            response = await super().execute(*args, **named)
            return response | {"reward": kind(response["reward"])}

    steps = [(torch.tensor(0.1, dtype=torch.float64), "+", False), (torch.tensor(0.7), "", True)]
    made = sampler(*MT)
    found = []
    for executor in (Kind, theirs.MultiTurnAgentExecutor):
        response = agents.run(executor(agents.scripted(*steps).agent_instance_cls), "12", "345")
        found.append(made._process_response_into_experience(response))
    rewards = torch.cat([each.rewards for each in found])
    rows = {name: [each.info[extra.KEY + name][0] for each in found] for name in ROWS}
    _, settled = settle_rewards(credit.MTGRPO(), rows, rewards)
    expected = torch.tensor([torch.tensor(0.7).item()] * 2, dtype=rewards.dtype)
    torch.testing.assert_close(settled["rewards"], expected, rtol=0, atol=1e-7 if kind is np.float32 else 0)


class Own(theirs.MultiTurnAgentExecutor):
    """A user's executor with a loop of its own, whose steps nobody sees."""

    async def execute(
        self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None
    ):
        return agents.answer([3, 4, 5], [(1, 2), (2, 3)], 1.0)


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        (Own, "mt_grpo needs token_rewards, which credit takes from the steps of OpenRLHF's MultiTurn"),
        (theirs.SingleTurnAgentExecutor, "return them as extra_logs.'token_rewards'. of the reward function"),
    ],
)
def test_steps_that_nobody_saw_are_an_error_with_the_way_out(recording, sampler, executor, message):
    made = executor(agents.scripted(*TWO).agent_instance_cls) if executor is Own else executor()
    params = {"max_length": 20}
    response = agents.run(made, "12", **params)
    with pytest.raises(ValueError, match=message):
        sampler(*MT)._process_response_into_experience(response)


def test_steps_that_are_not_the_turns_are_an_error(recording, sampler):
    response = agents.run(agents.scripted(*TWO), "12", "345")
    response["action_ranges"] = [(3, 11)]
    with pytest.raises(ValueError, match="has 1 action_ranges, while 2 of its steps were seen; return them"):
        sampler(*MT)._process_response_into_experience(response)


def test_what_an_agent_logs_itself_comes_first(recording, sampler):
    response = agents.run(agents.scripted(*TWO), "12", "345")
    response["extra_logs"] = {"token_rewards": [1.0, 2.0, 3.0, 4.0, 5.0]}
    found = sampler(*MT)._process_response_into_experience(response)
    assert found.info[extra.KEY + "token_rewards"] == [[1.0, 2.0, 3.0, 4.0, 5.0]]
    assert found.info[extra.KEY + "turns.outcome"] == [None]


def test_without_the_hook_openrlhfs_executor_is_its_own(sampler):
    response = agents.run(agents.scripted(*TWO), "12", "345")
    assert STEPS not in response
    assert set(response) == set(agents.run(agents.scripted(*TWO), "12", "345"))
    made = sampler(NAME, "grpo")._process_response_into_experience(response)
    assert not [name for name in made.info if name.startswith(extra.KEY)]


def test_a_mix_whose_parts_read_the_rewards_differently_is_an_error(recording, sampler):
    parts = '[[1.0, "mt_grpo"], [1.0, "process_grpo"]]'
    response = agents.run(agents.scripted(*TWO), "12", "345")
    with pytest.raises(
        ValueError, match="mt_grpo .outcome., process_grpo .tokens.; return them as extra_logs"
    ):
        sampler(NAME, "mix", "--credit.parts", parts)._process_response_into_experience(response)
