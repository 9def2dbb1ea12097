"""What the agentic learner makes of trajectories that are given, and what it refuses."""

from types import SimpleNamespace

import numpy as np
import pytest
from two_turns import GROUP, WIDTH, Plain

from credit.adapters.tunix import (
    CreditAgenticGRPOConfig,
    CreditAgenticGRPOLearner,
    CreditGRPOConfig,
    trajectories,
)


@pytest.fixture(scope="module")
def cluster(make_cluster):
    return make_cluster(
        return_logprobs=True, max_tokens_to_generate=WIDTH, max_prompt_length=8, kv_cache_size=64
    )


def trajectory(place, reward, chosen, masked=False, steps=None):
    tokens = np.full(chosen, 5, np.int32)
    fields = {
        "conversation_text": [{"role": "assistant", "content": "22"}],
        "conversation_tokens": tokens,
        "conversation_masks": np.zeros_like(tokens) if masked else np.ones_like(tokens),
        "old_logprobs": np.zeros(chosen, np.float32),
        "policy_version": 0,
        "trajectory_reward": reward,
        "prompt_tokens": np.array([4, 5]),
        "original_input": {"prompts": np.array(["12>"])},
        "group_id": 0,
    }
    if steps is not None:
        fields["credit_steps"] = steps
    return SimpleNamespace(traj=fields, group_id=0, pair_index=place)


def score(cluster, group, reward=None, **settings):
    config = CreditAgenticGRPOConfig(
        num_generations=GROUP, beta=0.0, max_response_length=WIDTH, **({"estimator": "grpo"} | settings)
    )
    learner = CreditAgenticGRPOLearner(cluster, config, reward, chat_parser=Plain())
    (example,) = learner._process_results(group)
    mask = np.asarray(example.completion_mask)
    rows = zip(np.asarray(example.advantages), mask, strict=True)
    return np.array([row[kept].mean() if kept.any() else np.nan for row, kept in rows])


def test_an_agent_that_never_got_to_choose_takes_no_part(cluster):
    rewards, lengths = [1.0, 0.0, 0.0, 1.0], [0, 4, 6, 3]
    group = [trajectory(*each) for each in zip(range(GROUP), rewards, lengths, strict=True)]
    assert score(cluster, group)[1:] == pytest.approx([-0.57735, -0.57735, 1.1547], abs=1e-4)
    # Whereas one whose tokens Tunix masks counts in its group, as in TRL.
    group[0] = trajectory(0, 1.0, 5, masked=True)
    found = score(cluster, group)
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([-0.86602, -0.86602, 0.86602], abs=1e-4)


def test_a_trajectory_without_a_reward_leaves_the_loss(cluster):
    group = [trajectory(place, 0.0, 4) for place in range(GROUP)]
    found = score(cluster, group, reward=lambda completions, **_: [None, 1.0, 0.0, 1.0])
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([0.57735, -1.1547, 0.57735], abs=1e-4)


def test_an_environment_alone_is_no_choice(cluster):
    """Its answer to an agent that sampled nothing fills the row with tokens."""
    group = [trajectory(place, reward, 5) for place, reward in enumerate([1.0, 0.0, 0.0, 1.0])]
    group[0] = trajectory(0, 1.0, 5, masked=True, steps=[trajectories.Step(0, 5, 1.0, done=True)])
    found = score(cluster, group)
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([-0.57735, -0.57735, 1.1547], abs=1e-4)


@pytest.mark.parametrize("estimator", ["mt_grpo", "process_grpo"])
def test_a_step_without_a_reward_takes_its_row_out_and_no_other(cluster, estimator):
    def make(first):
        earned = [(first, 2.0), (1.0, 0.0), (0.0, 0.0), (0.5, 1.5)]
        steps = [[trajectories.Step(2, 0, a), trajectories.Step(2, 0, b, done=True)] for a, b in earned]
        return [trajectory(place, sum(earned[place]), 4, steps=own) for place, own in enumerate(steps)]

    def reward(first):
        return lambda completions, **_: [first, 0.0, 0.0, 1.0]

    found = score(cluster, make(np.nan), reward=reward(1.0), estimator=estimator)
    without = score(cluster, make(1.0), reward=reward(None), estimator=estimator)
    assert np.isnan(found[0])
    assert np.abs(found[1:]).max() > 0.1
    assert found[1:] == pytest.approx(without[1:], abs=1e-6)


def test_groups_without_advantages_leave_the_loss_if_tunix_is_told_so(cluster):
    group = [trajectory(place, 1.0, 4) for place in range(GROUP)]
    assert score(cluster, group).tolist() == [0.0] * GROUP
    assert np.isnan(score(cluster, group, degenerate_group_masking=True)).all()


STEPS = [[(3, 2, 1.0), (2, 1, 2.0), (0, 0, 4.0)], [(2, 4, 1.0), (4, 0, 8.0)], [(0, 0, 1.0)]]


def test_turns_and_their_rewards_lie_on_the_tokens_of_their_steps():
    rows = [[trajectories.Step(*step) for step in row] for row in STEPS]
    mask = np.array([[1, 1, 1, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0, 1, 1], [0] * 8], bool)
    turns = trajectories.number_turns(rows, 8)
    assert turns[mask].tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1]
    rewards = trajectories.place_rewards(rows, mask)
    # A step without a token pays for the one before it, and one that is cut off for what is left of it.
    assert rewards.tolist() == [[0, 0, 1, 0, 0, 0, 6, 0], [0, 1, 0, 0, 0, 0, 0, 8], [0] * 8]


@pytest.mark.parametrize(
    ("reading", "functions", "placed", "outcome"),
    [
        ("outcome", None, [0.0, 1.0, 0.0, 0.0], 8.0),
        ("outcome", 5.0, [0.0, 1.0, 0.0, 8.0], 5.0),
        ("tokens", None, [0.0, 1.0, 0.0, 8.0], 8.0),
        ("tokens", 5.0, [0.0, 1.0, 0.0, 13.0], 5.0),
    ],
)
def test_no_reward_counts_twice(reading, functions, placed, outcome):
    """What is `rewards` to an estimator that adds them is not in token_rewards; to others, all is there."""
    rows = [[trajectories.Step(2, 0, 1.0), trajectories.Step(2, 0, 8.0, done=True)]]
    own = None if functions is None else np.array([functions])
    found, rewards = trajectories.split_rewards(reading, rows, np.ones((1, 4), bool), own)
    assert found.tolist() == [placed]
    assert rewards.tolist() == [outcome]


@pytest.mark.parametrize(
    ("config", "training", "message"),
    [
        (
            {"estimator": "gdpo"},
            {},
            "gdpo compares the groups of a batch, but Tunix's agentic learner passes on one",
        ),
        ({"estimator": "lite_ppo"}, {}, "lite_ppo compares the groups of a batch"),
        ({"estimator": "reinforce_plus_plus"}, {}, "reinforce_plus_plus compares the groups of a batch"),
        (
            {"estimator": "grpo"},
            {"max_seq_token_per_tpu": 96},
            "max_seq_token_per_tpu=96 packs as many tokens",
        ),
        (
            {"estimator": "dapo", "filter_groups": True},
            {"mini_batch_size": 4, "train_micro_batch_size": 2, "compute_logps_micro_batch_size": 2},
            "compute_logps_micro_batch_size=2 scores each micro-batch when the one before",
        ),
        (
            {"estimator": "dgpo", "off_policy_steps": 1},
            {},
            "off_policy_steps=1 trains on completions of weights",
        ),
        (
            {"estimator": "dgpo", "num_iterations": 2},
            {},
            "num_iterations=2 changes the weights while the next",
        ),
        ({"estimator": "remax"}, {}, "remax needs baseline_rewards, which Tunix does not provide"),
        (
            {"estimator": {"name": "dapo", "filter_by": 1}},
            {},
            "filter_by=1 of dapo counts the rewards from 0",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_the_learner_is_made(make_cluster, config, training, message):
    models = make_cluster(
        return_logprobs=True, max_tokens_to_generate=WIDTH, kv_cache_size=64, training=training
    )
    settings = CreditAgenticGRPOConfig(max_response_length=WIDTH, **config)
    with pytest.raises(ValueError, match=message):
        CreditAgenticGRPOLearner(models, settings, chat_parser=Plain())


def test_the_config_of_the_other_learner_is_refused(cluster):
    with pytest.raises(ValueError, match="expected a CreditAgenticGRPOConfig"):
        CreditAgenticGRPOLearner(cluster, CreditGRPOConfig())
