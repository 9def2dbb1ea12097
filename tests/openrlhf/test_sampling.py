"""The dynamic filter: OpenRLHF's own loop, with scores that differ kept and equal ones replaced."""

from types import SimpleNamespace
from typing import Literal

import pytest
import ray
import torch
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

    def run(kind, *given, estimator="dapo"):
        flags = ["--algo.advantage.estimator", estimator, "--algo.dynamic_filtering_enable", *given]
        args = parse(*flags)
        sampler = kind(SimpleNamespace(args=args), None, None, None, [])
        left = iter(GROUPS)
        monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs[:1], refs[1:]))
        monkeypatch.setattr(ray, "get", lambda ref: [response(score) for score in ref])
        monkeypatch.setattr(sampler, "_dispatch_prompts_to_vllm", lambda prompts, *_, **__: prompts)
        prompts = ((None, [group], [None], [None]) for group in left)
        kept, consumed, _ = sampler._generate_vllm(prompts, 3, True)
        assert consumed == len(GROUPS)
        return torch.cat([experience.scores for experience in kept]).view(-1, 4).tolist()

    return run


@pytest.mark.parametrize("estimator", ["dapo", "dgpo", "reinforce_plus_plus"])
def test_a_prompt_stays_where_its_scores_differ(filtered, estimator):
    assert filtered(CreditSamplesGenerator, estimator=estimator) == [GROUPS[1], GROUPS[3], GROUPS[4]]


def test_openrlhfs_own_rule_is_another_one(filtered):
    assert filtered(SamplesGenerator, estimator="group_norm") == [GROUPS[3]]


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
