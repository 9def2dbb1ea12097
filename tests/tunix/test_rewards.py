"""What becomes of the rewards of Tunix's reward functions, one by one, missing ones included."""

import numpy as np
import pytest
from tunix.rl.rl_cluster import Mode

import credit
from credit.adapters.tunix import CreditGRPOConfig, CreditGRPOLearner

GROUP = 4
NAN = float("nan")
PROMPTS = {"prompts": ["12>"] * GROUP + ["3>"] * GROUP}


@pytest.fixture(scope="module")
def cluster(make_cluster):
    """One for all tests, so that it is compiled once."""
    return make_cluster()


def gives(name, rewards):
    def function(prompts, **_):
        return list(rewards[: len(prompts)])

    function.__name__ = name
    return function


@pytest.fixture
def learn(cluster, monkeypatch):
    """The example that a learner makes of completions that are given, with a reward function per column."""

    def run(columns, tokens=None, **settings):
        generate = cluster.generate

        def set_tokens(*arguments, **named):
            output = generate(*arguments, **named)
            for place, row in (tokens or {}).items():
                output.tokens[place] = np.array(row, np.int32)
            return output

        monkeypatch.setattr(cluster, "generate", set_tokens)
        functions = [gives(f"reward_{place}", column) for place, column in enumerate(columns)]
        config = CreditGRPOConfig(num_generations=GROUP, beta=0.0, **settings)
        learner = CreditGRPOLearner(cluster, config, functions)
        learner._rollout_micro_batch_size = learner._compute_logps_micro_batch_size = 2
        return learner._generate_and_compute_advantage({"prompts": PROMPTS["prompts"]}, Mode.TRAIN)

    return run


def per_row(example):
    """The advantage of each row, which all of its tokens share; NaN where none is in the loss."""
    mask, advantages = np.asarray(example.completion_mask), np.asarray(example.advantages)
    return np.array(
        [row[kept].mean() if kept.any() else NAN for row, kept in zip(advantages, mask, strict=True)]
    )


CORRECT = np.array([100.0, 0, 100, 0, 0, 100, 0, 0])
FORMAT = np.array([0.1, 0.4, 0.3, 0.2, 0.9, 0.2, 0.1, 0.3])
GROUPS = np.arange(2 * GROUP) // GROUP


def expected(estimator, rewards):
    rollouts = credit.Rollouts(np.asarray(rewards, np.float64), GROUPS, np.ones((2 * GROUP, 1), bool))
    return credit.parse(estimator)(rollouts).advantages[:, 0]


@pytest.mark.parametrize("estimator", ["gdpo", {"name": "gdpo", "reward_weights": [1.0, 3.0]}], ids=str)
def test_gdpo_weighs_the_rewards_of_each_function(learn, estimator):
    example = learn([CORRECT, FORMAT], estimator=estimator)
    apart = expected(estimator, np.stack([CORRECT, FORMAT], axis=1))
    assert per_row(example) == pytest.approx(apart, abs=1e-5)
    assert np.abs(apart - expected("gdpo", CORRECT + FORMAT)).max() > 0.1  # GDPO of the sum


def test_a_reward_that_one_function_does_not_give_is_left_out(learn):
    given = [None, 0.4, NAN, 0.2, 0.9, 0.2, None, 0.3]
    example = learn([CORRECT, given], estimator="gdpo")
    rewards = np.stack([CORRECT, np.array(given, float)], axis=1)
    assert per_row(example) == pytest.approx(expected("gdpo", rewards), abs=1e-5)
    assert np.asarray(example.completion_mask).any(axis=1).all()


def test_one_reward_of_several_decides_about_groups(learn):
    flat = [*FORMAT[:GROUP], *[0.5] * GROUP]
    for chosen, kept in ((0, [True, True]), (1, [True, False]), ("total", [True, True])):
        example = learn([CORRECT, flat], estimator={"name": "dapo", "filter_by": chosen}, filter_groups=True)
        rows = np.asarray(example.completion_mask).any(axis=1)
        assert rows.reshape(2, GROUP).any(axis=1).tolist() == kept
        sums = expected("dapo", CORRECT + np.array(flat))
        assert per_row(example)[rows] == pytest.approx(sums[rows], abs=1e-5)


def test_the_penalty_is_one_more_reward_of_several(learn):
    weights = {"name": "gdpo", "reward_weights": [1.0, 3.0]}
    example = learn([CORRECT, FORMAT], estimator=weights, overlong_cache=6)
    lengths = np.asarray(example.completion_mask).sum(axis=1)
    penalty = -np.clip(lengths - 6, 0, 6) / 6
    estimator = {"name": "gdpo", "reward_weights": [1.0, 3.0, 1.0]}
    assert penalty.min() < 0
    assert per_row(example) == pytest.approx(
        expected(estimator, np.stack([CORRECT, FORMAT, penalty], axis=1)), abs=1e-5
    )


@pytest.mark.parametrize("estimator", ["grpo", "gdpo"])
def test_rows_without_a_reward_leave_the_loss(learn, estimator):
    example = learn([[NAN, 1.0, 0.0, 1.0, 0.0, None, 1.0, 3.0]], estimator=estimator)
    rows = np.asarray(example.completion_mask).any(axis=1)
    assert rows.tolist() == [False, True, True, True, True, False, True, True]
    sums = expected(estimator, [NAN, 1.0, 0.0, 1.0, 0.0, NAN, 1.0, 3.0])
    assert per_row(example)[rows] == pytest.approx(sums[rows], abs=1e-5)
    assert (np.asarray(example.advantages)[~rows] == 0).all()


def test_a_response_without_a_token_takes_no_part(learn):
    example = learn([[1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 2.0, 3.0]], tokens={0: [0] * 12}, estimator="grpo")
    found = per_row(example)
    assert np.isnan(found[0])
    assert found[1:GROUP] == pytest.approx([-0.57735, -0.57735, 1.1547], abs=1e-4)


def test_rewards_keep_their_digits(learn):
    rewards = [1.0, 1.0, 1.0, 1.0 + 1e-8, 0.0, 1.0, 2.0, 3.0]
    found = per_row(learn([rewards], estimator={"name": "grpo", "eps": 0.0}))
    assert found[:GROUP] == pytest.approx([-0.5, -0.5, -0.5, 1.5], abs=1e-5)


def test_a_function_without_rewards_is_tunix_own_error(cluster):
    def nothing(**_):
        return None

    learner = CreditGRPOLearner(cluster, CreditGRPOConfig(num_generations=GROUP), nothing)
    with pytest.raises(RuntimeError, match="Failed to obtain result from nothing"):
        learner._compute_rewards(["12>"], ["1"], Mode.TRAIN)
