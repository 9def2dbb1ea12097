"""What becomes of rewards before advantages: their digits, and the penalties for length."""

import logging

import openrlhf_cases as cases
import pytest
import torch
from openrlhf.trainer.ppo_utils import experience_maker

GROUP_NORM = ["--algo.advantage.estimator", "grpo", "--credit.preset", "openrlhf"]
THEIRS = ["--algo.advantage.estimator", "group_norm"]
OVERLONG = ["--reward.overlong_buffer_len", 4, "--rollout.max_new_tokens", 8]


def both(parse, rewards, mask, *flags, **fields):
    """A micro-batch with OpenRLHF's advantages, and the same one with ours."""
    theirs, ours = (cases.batch(rewards.clone(), mask, **fields) for _ in range(2))
    (theirs,) = cases.maker(parse(*THEIRS, *flags)).compute_advantages_and_returns([theirs])
    (ours,) = cases.run_maker(parse(*GROUP_NORM, *flags), [ours])
    return theirs, ours


@pytest.mark.parametrize("rewards", [[1, 1, 1, 1 + 1e-8], [1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3]])
def test_float64_rewards_keep_their_digits(parse, rewards):
    """numpy's floats from a reward function come as float64; float32 would make these rewards equal."""
    rewards = torch.tensor(rewards, dtype=torch.float64)
    assert len(rewards.float().unique()) == 1
    theirs, ours = both(parse, rewards, torch.ones(4, 2).long())
    torch.testing.assert_close(ours.advantages, theirs.advantages, rtol=1e-6, atol=1e-6)
    assert ours.advantages.dtype == ours.returns.dtype == torch.float32
    assert ours.advantages.abs().max() > 0.5
    assert ours.rewards.dtype == ours.info["reward"].dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64])
def test_other_rewards_become_float32(parse, dtype):
    theirs, ours = both(parse, torch.tensor([1, 0, 0, 3], dtype=dtype), torch.ones(4, 2).long(), *OVERLONG)
    torch.testing.assert_close(ours.advantages, theirs.advantages, rtol=1e-6, atol=1e-6)
    assert ours.rewards.dtype == ours.info["reward"].dtype == torch.float32


def test_rewards_of_several_types_meet_in_one_batch(parse):
    """Ray's workers send micro-batches of their own; one of them may hold integers alone."""
    whole = torch.tensor([0.5, 0.5 + 2**-30, 1, 2], dtype=torch.float64)
    parts = [
        cases.batch(rewards, torch.ones(2, 2).long(), index=index)
        for rewards, index in ((whole[:2], [0, 1]), (whole[2:].long(), [2, 3]))
    ]
    made = cases.run_maker(parse(*GROUP_NORM), parts)
    expected = (whole - whole.mean()) / whole.std()
    found = torch.cat([each.advantages[:, 0] for each in made])
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-6)


TURNS = torch.tensor([[1, 1, 1, 0, 0, 0, 1, 1]] + [[1, 1, 1, 1, 1, 0, 0, 0]] * 3)


def test_the_overlong_penalty_counts_the_policys_tokens(parse):
    """OpenRLHF#1243: its response_length of an agent spans the environment's tokens. Here all have 5 of 8."""
    span = torch.tensor([8, 5, 5, 5])
    theirs, ours = (cases.batch(torch.ones(4), TURNS) for _ in range(2))
    for each in (theirs, ours):
        each.response_length = span
    cases.maker(parse(*THEIRS, *OVERLONG)).compute_advantages_and_returns([theirs])
    cases.run_maker(parse(*GROUP_NORM, *OVERLONG), [ours])
    assert theirs.rewards.tolist() == [0.0, 0.75, 0.75, 0.75]
    assert ours.rewards.tolist() == ours.info["reward"].tolist() == [0.75] * 4
    assert not ours.advantages.any()
    assert ours.response_length is span  # OpenRLHF logs it


@pytest.mark.parametrize("coefficient", [0.5, -0.25, 0.0])
@pytest.mark.parametrize("seed", range(3))
def test_in_a_single_turn_both_penalties_are_openrlhfs(parse, caplog, seed, coefficient):
    flags = [
        *OVERLONG,
        "--reward.stop_properly_penalty_coef",
        coefficient,
        "--reward.overlong_penalty_factor",
        2,
    ]
    found = []
    for own in (THEIRS, GROUP_NORM):
        made = cases.experiences(seed)
        for each in made:
            each.truncated = (each.response_length > 5).float()
        caplog.clear()
        with caplog.at_level(logging.INFO):
            experience_maker.logger.propagate = True
            if own is THEIRS:
                cases.maker(parse(*own, *flags)).compute_advantages_and_returns(made)
            else:
                cases.run_maker(parse(*own, *flags), made)
        lines = [r.getMessage() for r in caplog.records if "Penalty]" in r.getMessage()]
        found.append(([each.rewards.tolist() for each in made], lines))
        assert all(torch.equal(each.info["reward"], each.rewards) for each in made)
    assert found[0] == found[1]
    assert [line.split("]")[0] for line in found[0][1]] == [
        "[DAPO Overlong Penalty",
        "[ProRL Stop Properly Penalty",
    ]
