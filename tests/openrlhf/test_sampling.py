"""The dynamic filter: OpenRLHF's own loop, with scores that differ kept and equal ones replaced."""

from types import SimpleNamespace
from typing import Literal

import pytest
import ray
import torch
from openrlhf.trainer.ppo_utils import samples_generator as theirs
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

import credit
from credit.adapters.openrlhf import extra
from credit.adapters.openrlhf.sampling import CreditSamplesGenerator

GROUPS = [[3.0, 3.0, 3.0, 3.0], [2.0, 5.0, 2.0, 2.0], [0, 0, 0, 0], [0, 1, 0, 1], [-1.5, -1.5, -1.5, -1.0]]


def response(score):
    """What a rollout worker answers."""
    made = {"observation_tokens": [3, 4, 5], "action_ranges": [(1, 3)], "reward": score, "scores": score}
    return made | {"rollout_log_probs": None, "prompt": "a", "label": "b"}


@pytest.fixture
def filtered(parse, monkeypatch):
    """The scores that a sampler keeps of GROUPS, in groups of 4."""

    def run(kind, *given, estimator="dapo", groups=GROUPS):
        flags = ["--algo.advantage.estimator", estimator, "--algo.dynamic_filtering_enable", *given]
        args = parse(*flags)
        sampler = kind(SimpleNamespace(args=args), None, None, None, [])
        left = iter(groups)
        monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs[:1], refs[1:]))
        monkeypatch.setattr(ray, "get", lambda ref: [response(score) for score in ref])
        monkeypatch.setattr(sampler, "_dispatch_prompts_to_vllm", lambda prompts, *_, **__: prompts)
        prompts = ((None, [group], [None], [None]) for group in left)
        asked = 3 if groups is GROUPS else len(groups)
        kept, consumed, _ = sampler._generate_vllm(prompts, asked, True)
        assert consumed == len(groups)
        scores = [None if each.scores is None else each.scores.item() for each in kept]
        return [scores[start : start + 4] for start in range(0, len(scores), 4)]

    return run


@pytest.mark.parametrize("estimator", ["dapo", "dgpo", "reinforce_plus_plus"])
def test_a_prompt_stays_where_its_scores_differ(filtered, estimator):
    assert filtered(CreditSamplesGenerator, estimator=estimator) == [GROUPS[1], GROUPS[3], GROUPS[4]]


def test_openrlhfs_own_rule_is_another_one(filtered):
    assert filtered(SamplesGenerator, estimator="group_norm") == [GROUPS[3]]


def test_another_range_leaves_out_prompts_by_their_mean_too(filtered):
    """Equal scores stay out, though their mean lies within it; OpenRLHF's own rule keeps them."""
    groups = [
        [0, 0, 0, 1],
        [0.5] * 4,
        [1, 1, 1, 0],
        [0, 1, 0, 1],
        [-9.0, 10.0, 0.5, 0.5],
        [5.0, 2.0, 2.0, 2.0],
    ]
    inner = ["--algo.dynamic_filtering_range", 0.3, 0.7]
    assert filtered(CreditSamplesGenerator, *inner, groups=groups) == [groups[3], groups[4]]
    assert filtered(SamplesGenerator, *inner, estimator="rloo", groups=groups) == [
        groups[k] for k in (1, 3, 4)
    ]
    assert len(filtered(CreditSamplesGenerator, "--algo.dynamic_filtering_range", 0, 1, groups=groups)) == 5


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("flags", [[], ["--algo.dynamic_filtering_range", -5, 5]])
def test_scores_that_are_no_numbers_are_openrlhfs_to_judge(filtered, flags):
    """It leaves a prompt out whose mean is none, and keeps one that has responses without scores."""
    groups = [[0, 1, NAN, 1], [None] * 4, [NAN] * 4, [0, 0, None, 0], [INF, 0, 0, 1], [0, 1, 0, 1]]
    kept = [groups[1], groups[3], groups[5]]
    assert filtered(CreditSamplesGenerator, *flags, groups=groups) == kept
    assert filtered(SamplesGenerator, *flags, estimator="rloo", groups=groups) == kept


def test_openrlhf_logs_the_scores_that_a_prompt_is_left_out_for(filtered, monkeypatch):
    logged = []
    monkeypatch.setattr(theirs.logger, "info", logged.append)
    filtered(CreditSamplesGenerator, groups=[[3.0] * 4, [0, 1, 0, 1]])
    assert logged == [
        "Filtered out: avg_reward=3.00, threshold=(3.00, 3.00), scores=['3.00', '3.00', '3.00', '3.00']"
    ]


def test_the_trainers_own_options_stay_as_they_are(parse):
    args = parse("--algo.advantage.estimator", "dapo", "--algo.dynamic_filtering_enable")
    sampler = CreditSamplesGenerator(SimpleNamespace(args=args), None, None, None, [])
    sampler.args.algo.dynamic_filtering_range = (3.0, 3.0)
    assert args.algo.dynamic_filtering_range == (0, 1)


def test_an_estimators_own_filter_is_asked_too(filtered, monkeypatch):
    def positive(self, rollouts):
        return rollouts.rewards.min() >= 0

    monkeypatch.setattr(credit.DGPO, "keep", positive)
    assert filtered(CreditSamplesGenerator, estimator="dgpo") == [GROUPS[1], GROUPS[3]]


class Reads(credit.GRPO):
    """Reads two arrays of the user's own."""

    name: Literal["reads_logs"] = "reads_logs"

    @property
    def needs(self):
        return ("extra.own", "extra.share")


def answer(**logs):
    """What a rollout worker answers after a reward function has logged numbers: three actions in two turns."""
    made = {
        "observation_tokens": [3, 4, 5, 6, 7],
        "action_ranges": [(1, 3), (4, 5)],
        "reward": 1.0,
        "scores": 1.0,
    }
    return made | {"rollout_log_probs": None, "prompt": "a", "label": "b", "extra_logs": logs}


@pytest.mark.parametrize("kept", [3, 2])
def test_lists_that_a_reward_function_logs_reach_the_experience(parse, kept):
    args = parse("--algo.advantage.estimator", "reads_logs")
    sampler = CreditSamplesGenerator(SimpleNamespace(args=args), None, None, None, [])
    given = answer(own=[1.0, 2.0, 3.0], share=torch.tensor([0.5]), other=2, unread=[1, 2])
    longest = {3: 2048, 2: 4}[kept]  # OpenRLHF cuts what is longer
    found = sampler._process_response_into_experience(given, max_len=longest).info
    assert found[extra.KEY + "extra.own"] == [[1.0, 2.0, 3.0][:kept]]
    assert found[extra.KEY + "extra.share"] == [0.5]
    assert (found["share"].tolist(), found["other"].tolist()) == ([0.5], [2])
    assert not {"own", "unread"} & set(found)


def test_a_name_that_nothing_logs_is_refused(parse):
    args = parse("--algo.advantage.estimator", "reads_logs")
    sampler = CreditSamplesGenerator(SimpleNamespace(args=args), None, None, None, [])
    with pytest.raises(
        ValueError, match="needs extra.own, but this batch has no 'own'; it has share. In Open"
    ):
        sampler._process_response_into_experience(answer(share=1.0))
