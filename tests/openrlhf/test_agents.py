"""The rewards of an agent's turns: from OpenRLHF's own executor to the advantages, against float64 by hand."""

import asyncio
import math
from types import SimpleNamespace
from typing import Literal

import numpy as np
import openrlhf_agents as agents
import pytest
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.utils import agent as theirs
from openrlhf_cases import N, maker, run_maker

import credit
from credit.adapters.openrlhf import extra, worker_setup
from credit.adapters.openrlhf.agents import STEPS
from credit.adapters.openrlhf.sampling import CreditSamplesGenerator
from credit.adapters.openrlhf.trainer import CreditExperienceMaker
from credit.adapters.openrlhf.turns import BEFORE, OUTCOME, settle_rewards

NAME = "--algo.advantage.estimator"
MT = [NAME, "mt_grpo"]
ROWS = ("token_rewards", BEFORE, OUTCOME)
reward = agents.number


@pytest.fixture
def recording(monkeypatch):
    """MultiTurnAgentExecutor as it is in a rollout worker of credit's, for one test."""
    monkeypatch.setattr(theirs.MultiTurnAgentExecutor, "execute", theirs.MultiTurnAgentExecutor.execute)
    worker_setup.record_steps(theirs)


@pytest.fixture
def sampler(parse):
    def make(*flags):
        return CreditSamplesGenerator(SimpleNamespace(args=parse(*flags)), None, None, None, [])

    return make


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


class Bonus(theirs.MultiTurnAgentExecutor):
    """A user's executor that adds to what OpenRLHF's returns."""

    async def execute(self, *args, **named):
        response = await super().execute(*args, **named)
        return response | {"reward": response["reward"] + 8.0}


def test_what_an_executor_of_the_users_adds_is_of_the_outcome(recording, sampler):
    response = agents.run(Bonus(agents.scripted(*TWO).agent_instance_cls), "12", "345")
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


# Four samples of two prompts: turns of (tokens, reward), and whether the episode came to its end. The
# feedback between turns is one token, or none after the second sample's first turn.
EPISODES = [
    [[(2, 0.1), (3, 1.0)], [(1, 0.3), (2, 0.0)], [(4, 0.1), (1, 0.7), (2, 1.0)], [(3, 0.6)]],
    [[(1, 0.5), (1, 0.0)], [(2, 0.5), (2, 1.0)], [(2, 0.0), (3, 0.0)], [(1, math.nan), (1, 1.0)]],
]
CUT = (0, 3)  # a sample whose budget ended it before it was done


def texts(turns):
    return ["7" * size for size, _ in turns]


def made_experiences(sampler):
    """The experiences of EPISODES by OpenRLHF's own executor and sampler, in two micro-batches."""
    found = []
    for prompt, samples in enumerate(EPISODES):
        for sample, turns in enumerate(samples):
            cut = (prompt, sample) == CUT
            last = len(turns) - 1
            script = [
                (reward(r), "" if sample == 1 and k == 0 else "++" if cut else "+", k == last and not cut)
                for k, (_, r) in enumerate(turns)
            ]
            response = agents.run(agents.scripted(*script), *texts(turns), max_length=7 if cut else 100)
            found.append(sampler._process_response_into_experience(response, max_len=100))
            found[-1].index = [len(found) - 1]
    batches = [Experience.concat_experiences(found[:3], 0), Experience.concat_experiences(found[3:], 0)]
    for each in batches:
        each.kl = torch.zeros(each.action_mask.shape)
    return batches


@pytest.mark.parametrize("penalty", [0, 4])
def test_the_advantages_of_turns_are_those_by_hand(recording, sampler, parse, penalty):
    flags = ["--reward.overlong_buffer_len", penalty, "--rollout.max_new_tokens", 8] if penalty else []
    batches = made_experiences(sampler(*MT))
    before = torch.cat([each.rewards for each in batches]).double()
    masks = [mask.bool() for each in batches for mask in each.action_mask.clone()]
    made = maker(parse(*MT, *flags), CreditExperienceMaker)
    made.credit_progress = 0.0
    made.compute_advantages_and_returns(batches)
    penalties = (torch.cat([each.rewards for each in batches]).double() - before).tolist()
    assert any(each < -0.2 for each in penalties) == bool(penalty)
    rows = (row for each in batches for row in each.advantages)
    got = [row[mask] for row, mask in zip(rows, masks, strict=True)]
    for prompt, samples in enumerate(EPISODES):
        own = penalties[N * prompt : N * (prompt + 1)]
        done = [(prompt, sample) != CUT for sample in range(N)]
        outcomes = [(turns[-1][1] if d else 0.0) + p for turns, d, p in zip(samples, done, own, strict=True)]
        earned = [
            [r for _, r in turns[:-1]] + [0.0 if d else turns[-1][1]]
            for turns, d in zip(samples, done, strict=True)
        ]
        advantages = agents.compute_turns(outcomes, earned)
        for sample, turns in enumerate(samples):
            sizes = [size for size, _ in turns]
            expected = torch.tensor(np.repeat(advantages[sample], sizes))
            row = got[N * prompt + sample].double()
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)
    assert not [name for each in batches for name in each.info if name.startswith(extra.KEY)]


def test_an_agent_that_never_chose_a_token_takes_no_part(recording, sampler, parse):
    """Its prompt left no room; what an executor gives for it says nothing about the policy."""
    steps = [[(reward(0.25 * k), "+", False), (reward(k), "", True)] for k in range(3)]
    responses = [agents.run(agents.scripted(*each), "12", "345") for each in steps]
    responses.insert(0, agents.run(Bonus(agents.scripted().agent_instance_cls), max_length=1))
    assert (responses[0]["action_ranges"], responses[0]["reward"]) == ([], 8.0)
    found = []
    for chosen in ([0, 1, 2, 3], [1, 2, 3]):
        rows = [sampler(*MT)._process_response_into_experience(responses[k], max_len=100) for k in chosen]
        for k, row in zip(chosen, rows, strict=True):
            row.index = [k]
        batch = Experience.concat_experiences(rows, 0)
        batch.kl = torch.zeros(batch.action_mask.shape)
        (batch,) = run_maker(parse(*MT), [batch])
        found.append(batch.advantages[-3:])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert found[0].abs().max() > 0.5


class Counts(credit.ProcessGRPO):
    """Says that the rewards of a response's tokens are its reward, whatever OpenRLHF subtracted."""

    name: Literal["counts_rewards"] = "counts_rewards"

    def assign(self, rollouts):
        finite = rollouts.rewards.isfinite()
        sums = rollouts.token_rewards.sum(dim=1)
        torch.testing.assert_close(sums[finite], rollouts.rewards[finite], rtol=0, atol=1e-6)
        return super().assign(rollouts)


def test_with_rewards_of_tokens_alone_none_is_lost(recording, sampler, parse):
    flags = [NAME, "counts_rewards", "--reward.overlong_buffer_len", 4, "--rollout.max_new_tokens", 8]
    batches = made_experiences(sampler(*flags))
    made = maker(parse(*flags, "--reward.stop_properly_penalty_coef", "0.5"), CreditExperienceMaker)
    made.credit_progress = 0.0
    made.compute_advantages_and_returns(batches)
    assert max(each.advantages.abs().max() for each in batches) > 0.5
