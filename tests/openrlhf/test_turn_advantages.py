"""The advantages of an agent's turns, by OpenRLHF's executor, sampler and experience maker, against float64 by hand."""

import math
from typing import Literal

import numpy as np
import openrlhf_agents as agents
import pytest
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf_cases import N, maker, run_maker

import credit
from credit.adapters.openrlhf import extra
from credit.adapters.openrlhf.trainer import CreditExperienceMaker

NAME = "--algo.advantage.estimator"
MT = [NAME, "mt_grpo"]
reward = agents.number

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
    responses.insert(0, agents.run(agents.Bonus(agents.scripted().agent_instance_cls), max_length=1))
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
