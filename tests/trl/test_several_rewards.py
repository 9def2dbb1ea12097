"""Estimators that take the rewards of every function by themselves."""

import numpy as np
import pytest
from trl import GRPOConfig, GRPOTrainer

import credit


def varied(completions, **_):
    return [len(set(text)) / 8 for text in completions]


def low(completions, **_):
    return [100.0 * sum(c < "5" for c in text) for text in completions]


def even_only(prompts, completions, **_):
    """Says nothing about odd prompts."""
    pairs = zip(prompts, completions, strict=True)
    return [None if int(prompt[:-1]) % 2 else float(len(text)) for prompt, text in pairs]


def failing(completions, **_):
    """A judge that fails on some completions of most groups."""
    return [None if len(text) % 3 else float(len(text)) for text in completions]


BATCH = {"per_device_train_batch_size": 32, "max_steps": 1}


@pytest.mark.releases
@pytest.mark.parametrize("functions", [[varied, low], [varied, even_only], [failing, low, even_only]])
def test_gdpo_equals_trls_normalize_then_sum(train, functions):
    settings = BATCH | {"reward": functions, "reward_weights": [1.0, 0.5, 2.0][: len(functions)]}
    ours, _ = train("gdpo", {"preset": "trl"}, **settings)
    apart = {"multi_objective_aggregation": "normalize_then_sum"}
    theirs, _ = train(kind=GRPOTrainer, config=GRPOConfig, **apart, **settings)
    assert np.abs(theirs._logs["advantages"]).max() > 0.1
    np.testing.assert_allclose(ours._logs["advantages"], theirs._logs["advantages"], atol=5e-6)
    train("gdpo", **apart, **settings)  # what TRL calls it, is no contradiction


def test_only_a_row_that_no_function_scored_leaves_the_batch(train):
    def never(completions, **_):
        return [None] * len(completions)

    one, log = train("gdpo", reward=[failing, never], **BATCH)
    unscored = np.isnan(one._logs["rewards"]["failing"])
    assert 0 < unscored.sum() < 32
    assert log[0]["credit/invalid_rows"] == unscored.sum()
    assert (np.asarray(one._logs["advantages"])[unscored] == 0).all()
    _, log = train("gdpo", reward=[failing, low], **BATCH)
    assert log[0]["credit/invalid_rows"] == 0


def test_the_estimators_own_weights_are_trls_too(train):
    settings = BATCH | {"reward": [varied, low]}
    ours, _ = train("gdpo", {"reward_weights": [1.0, 0.5]}, **settings)
    theirs, _ = train("gdpo", reward_weights=[1.0, 0.5], **settings)
    assert ours._logs["advantages"] == theirs._logs["advantages"]
    assert ours.reward_weights.tolist() == [1.0, 0.5]


def test_the_base_of_an_estimator_gets_every_reward(train):
    """In the first step, in which the policy is its reference, all weights are 1."""
    settings = BATCH | {"reward": [varied, low]}
    ours, _ = train("dgpo", {"base": {"name": "gdpo", "reward_weights": [1.0, 0.5]}}, **settings)
    alone, _ = train("gdpo", {"reward_weights": [1.0, 0.5]}, **settings)
    assert ours._logs["advantages"] == pytest.approx(list(alone._logs["advantages"]), abs=1e-6)
    assert ours.reward_weights.tolist() == [1.0, 0.5]
    named, _ = train("dgpo", {"base": "gdpo"}, reward_weights=[1.0, 0.5], **settings)
    assert named._logs["advantages"] == ours._logs["advantages"]


def test_the_overlong_penalty_is_one_more_reward(train):
    settings = BATCH | {"reward": [varied, low], "overlong_cache_length": 10}
    trainer, _ = train("gdpo", {"reward_weights": [1.0, 0.5]}, **settings)
    assert trainer.credit_estimator.reward_weights == (1.0, 0.5, 1.0)
    rewards = np.stack([trainer._logs["rewards"][name] for name in ("varied", "low", "overlong_penalty")], 1)
    given = credit.Rollouts(rewards.astype("f4"), np.arange(8).repeat(4), np.ones((32, 1), bool))
    expected = credit.GDPO(reward_weights=(1.0, 0.5, 1.0))(given).advantages[:, 0]
    np.testing.assert_allclose(trainer._logs["advantages"], expected, atol=5e-6)


def test_a_group_lives_if_any_reward_of_some_weight_varies(train):
    def flat(completions, **_):
        return [0.5] * len(completions)

    _, log = train("gdpo", dynamic_sampling="filter", reward=[flat, even_only], **BATCH)
    assert 0 < log[0]["credit/dropped_groups"] < 1
    _, same = train(
        "gdpo", dynamic_sampling="filter", reward=[varied, flat, even_only], reward_weights=[0, 1, 1], **BATCH
    )
    assert same[0]["credit/dropped_groups"] == log[0]["credit/dropped_groups"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kwargs": {"reward_weights": [1.0]}}, "1 reward_weights for 2 reward functions"),
        ({"kwargs": {"reward_weights": [1.0, 2.0]}, "reward_weights": [1.0, 2.0]}, "given twice"),
    ],
)
def test_wrong_weights_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer("gdpo", reward=[varied, low], **settings)
