"""The baselines against OpenRLHF's own, by its experience maker, wherever a prompt's rewards differ."""

import openrlhf_cases as cases
import pytest
import torch

import credit
from credit.adapters.openrlhf.trainer import CreditExperienceMaker

# OpenRLHF's name, and what is asked of ours.
PAIRS = {
    "group_norm": ["grpo", "--credit.preset", "openrlhf"],
    "rloo": ["credit_rloo"],
    "dr_grpo": ["credit_dr_grpo"],
    "reinforce": ["reinforce_plus_plus", "--credit.preset", "openrlhf"],
    "reinforce_baseline": ["reinforce_plus_plus_baseline", "--credit.preset", "openrlhf"],
    "gae": ["credit_gae", "--credit.preset", "openrlhf"],
}
WHITENED = ("reinforce", "reinforce_baseline", "gae")
RETURNS = ("reinforce", "gae")
RANGES = [(-10, 10), (-0.5, 0.3), (-2.0, 0.0), None]

PARTS = '[[1, "grpo"], [2, "reinforce_plus_plus_baseline"]]'


def both(parse, theirs, ours, seed, *more, clip=(-10, 10), **shape):
    """Experiences with OpenRLHF's advantages, and the same ones with ours."""
    found = []
    for own in ([theirs], ours):
        limits = [] if clip is None else ["--reward.clip_range", *clip]
        args = parse("--algo.advantage.estimator", *own, *more, *limits)
        if clip is None:  # which no flag gives, but a program that starts from the arguments
            args.reward.clip_range = None
        made = cases.experiences(seed, **shape)
        if own is ours:
            cases.run_maker(args, made)
        else:
            cases.maker(args).compute_advantages_and_returns(made)
        found.append(made)
    return found


@pytest.mark.parametrize("theirs", PAIRS)
@pytest.mark.parametrize("seed", range(5))
def test_equals_openrlhfs_own(parse, theirs, seed):
    for a, b in zip(*both(parse, theirs, PAIRS[theirs], seed, holes=seed % 2 == 1), strict=True):
        mask = a.action_mask.bool()
        differ = torch.tensor(a.index) >= cases.N
        whole = theirs in WHITENED  # whose equal rewards give no residue, or are whitened as any
        rows = mask if whole else mask & differ[:, None]
        assert rows.any()
        torch.testing.assert_close(b.advantages[rows], a.advantages[rows], rtol=1e-6, atol=1e-6)
        assert b.advantages[rows].abs().max() > 0.1
        assert (b.advantages[~mask] == 0).all()
        if theirs in RETURNS:  # which are not whitened
            torch.testing.assert_close(b.returns[mask], a.returns[mask], rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(b.returns, b.advantages)
        if not whole:
            assert (b.advantages[~differ] == 0).all()


def test_of_equal_rewards_openrlhf_makes_advantages_of_rounding(parse, monkeypatch):
    """Its eps of 1e-9 is below the rounding of a mean; docs/openrlhf.md tells it."""
    monkeypatch.setattr(cases, "N", 8)
    of_eight = ("--rollout.n_samples_per_prompt", 8)
    largest = 0.0
    for seed in range(5):
        made = both(parse, "group_norm", PAIRS["group_norm"], seed, *of_eight, sizes=(8,) * 5)
        for a, b in zip(*made, strict=True):
            equal = torch.tensor(a.index) < cases.N
            assert (b.advantages[equal] == 0).all()
            largest = max([largest, *a.advantages[equal].abs().flatten().tolist()])
    assert largest > 1.0


@pytest.mark.parametrize("clip", RANGES)
@pytest.mark.parametrize("theirs", PAIRS)
def test_the_clip_range_acts_where_openrlhfs_does(parse, theirs, clip):
    """On A_i; on the reward of reinforce and gae; on that less the group's mean, before it is whitened."""
    made = both(parse, theirs, PAIRS[theirs], 3, clip=clip, scale=30)
    for a, b in zip(*made, strict=True):
        rows = a.action_mask.bool()
        if theirs == "group_norm":
            rows = rows & (torch.tensor(a.index) >= cases.N)[:, None]
        torch.testing.assert_close(b.advantages[rows], a.advantages[rows], rtol=1e-5, atol=1e-5)
        if theirs in RETURNS:
            torch.testing.assert_close(b.returns[rows], a.returns[rows], rtol=1e-5, atol=1e-5)
    every = torch.cat([each.advantages[each.action_mask.bool()] for each in made[1]])
    for each in made[1]:  # the logged advantages are the clipped ones
        torch.testing.assert_close(each.info["credit/advantage_max"][0], every.max())
        torch.testing.assert_close(each.info["credit/advantage_min"][0], every.min())


@pytest.mark.parametrize("theirs", PAIRS)
def test_the_clip_range_takes_effect(parse, theirs):
    of = (parse, theirs, PAIRS[theirs], 3)
    free, cut = (
        torch.cat([each.advantages.flatten() for each in both(*of, clip=clip, scale=30)[1]])
        for clip in (None, (-1, 0.5))
    )
    assert (free - cut).abs().max() > 0.1


@pytest.mark.parametrize("theirs", ["reinforce", "reinforce_baseline", "gae"])
@pytest.mark.parametrize("preset", [False, True])
def test_no_std_norm_takes_effect_as_openrlhfs(parse, theirs, preset):
    ours = PAIRS[theirs] if preset else PAIRS[theirs][:1]
    flag = "--algo.advantage.no_std_norm"
    made = both(parse, theirs, ours, 3, flag, clip=(-5, 20), scale=30, holes=True)
    for a, b in zip(*made, strict=True):
        rows = a.action_mask.bool()
        torch.testing.assert_close(b.advantages[rows], a.advantages[rows], rtol=1e-6, atol=2e-5)
    assert max(each.advantages.max() for each in made[1]) > 4  # and no standard deviations


def test_no_std_norm_reaches_the_parts_of_a_mix_and_a_base(parse):
    name, flag = "--algo.advantage.estimator", "--algo.advantage.no_std_norm"
    mix = parse(name, "mix", "--credit.preset", "openrlhf", "--credit.parts", PARTS, flag).credit.estimator
    whitened = credit.ReinforcePlusPlusBaseline(divide_by_std=False)
    assert mix == credit.Mix(parts=[(1, credit.GRPO(eps=1e-9)), (2, whitened)])
    based = ("top_entropy", "--credit.base", "reinforce_plus_plus_baseline")
    assert parse(name, *based, flag).credit.estimator == credit.TopEntropy(base=whitened)


@pytest.mark.parametrize("clip", [(-0.5, 0.3), (-10, 10)])
@pytest.mark.parametrize("theirs", PAIRS)
def test_a_part_of_a_mix_gets_what_it_gets_alone(parse, theirs, clip):
    """The preset and the clip range, which acts on the A_i of each part."""
    (alone, *preset), scale = PAIRS[theirs], 10  # so that the default range acts too
    name = alone.removeprefix("credit_")
    mix = ["mix", *preset, "--credit.parts", f'[[0.75, "{name}"], [0.25, {{"name": "{name}"}}]]']
    given = []
    for ours in ([alone, *preset], mix):
        made = cases.experiences(2)
        for experience in made:
            experience.rewards = scale * experience.rewards
        args = parse("--algo.advantage.estimator", *ours, "--reward.clip_range", *clip)
        maker = cases.maker(args, CreditExperienceMaker)
        maker.credit_progress = 0.0
        given.append(maker.compute_advantages_and_returns(made))
    for a, b in zip(*given, strict=True):
        torch.testing.assert_close(b.advantages, a.advantages)
    largest = max(each.advantages.max().item() for each in given[1])
    assert largest == pytest.approx(clip[1]) or theirs not in ("rloo", "dr_grpo")


def test_the_length_penalties_are_openrlhfs(parse):
    more = ["--reward.overlong_buffer_len", 4, "--rollout.max_new_tokens", 7]
    for a, b in zip(*both(parse, "rloo", ["credit_rloo"], 1, *more), strict=True):
        assert torch.equal(a.rewards, b.rewards)
        assert torch.equal(a.info["reward"], b.info["reward"])
        torch.testing.assert_close(
            a.info["group_reward_std"], b.info["group_reward_std"], rtol=1e-5, atol=1e-6
        )
        rows = a.action_mask.bool()
        torch.testing.assert_close(b.advantages[rows], a.advantages[rows], rtol=1e-6, atol=2e-6)


def test_without_the_hook_openrlhfs_maker_refuses_our_estimators(parse):
    args = parse("--algo.advantage.estimator", "dgpo")
    with pytest.raises(Exception, match="advantage_estimator dgpo"):
        cases.maker(args).compute_advantages_and_returns(cases.experiences(0))
