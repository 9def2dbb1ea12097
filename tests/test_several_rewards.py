"""Rewards [N, K] of several functions, some of which gave a response none (NaN)."""

import numpy as np
import oracle
import pytest
from running import arrays, run

import credit

NONE = np.nan
REWARDS = np.array(
    [[1, 100], [0, NONE], [3, 40], [NONE, NONE], [NONE, 7], [2, 3], [5, NONE], [0.5, np.inf]], np.float32
)
GROUPS = np.array([0, 0, 0, 0, 4, 4, 4, 4])
MASK = np.array([[1, 1, 0]] * 4 + [[1, 1, 1]] * 4, bool)
ROLLOUTS = credit.Rollouts(REWARDS, GROUPS, MASK)
WEIGHTS = (1.0, 0.5)


def test_a_reward_that_was_not_given_counts_nowhere(library):
    estimator = credit.GDPO(reward_weights=WEIGHTS)
    found = run(library, estimator, ROLLOUTS, quick=False)
    advantages, expected, _, metrics = oracle.estimate(estimator, ROLLOUTS)
    np.testing.assert_allclose(found.advantages, expected, atol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(found.metrics[name], value, atol=1e-5, err_msg=name)
    assert found.metrics["invalid_rows"] == 2  # one without any reward, one with an infinite reward
    assert (advantages[[0, 1, 2, 4, 5, 6]] > 0.01).all()


@pytest.mark.parametrize("over", ["responses", "tokens"])
def test_a_function_that_gave_a_group_nothing_adds_nothing_to_it(over):
    """As if each of its rewards were 0; and a function that gave one response of a group a reward alike."""
    rewards = np.array([[1, 5], [0, 5], [2, 9], [1, NONE], [4, NONE], [3, NONE]])
    rollouts = credit.Rollouts(rewards, np.repeat([0, 3], 3), np.ones((6, 2), bool))
    estimator = credit.GDPO(over=over)
    expected = estimator(rollouts._replace(rewards=np.nan_to_num(rewards))).advantages
    np.testing.assert_array_equal(estimator(rollouts).advantages, expected)
    rewards[4, 1] = 8.0
    np.testing.assert_array_equal(estimator(rollouts).advantages, expected)


def test_the_base_of_another_counts_them_alike():
    deviation = np.full(MASK.shape, 0.1)
    rollouts = ROLLOUTS._replace(deviation=deviation, normalized_entropy=deviation)
    expected = credit.GDPO(reward_weights=WEIGHTS)(rollouts).advantages
    found = credit.DGPO(base=credit.GDPO(reward_weights=WEIGHTS))(rollouts)
    np.testing.assert_allclose(found.advantages, expected, rtol=1e-6)


def test_valid_rows_need_one_reward(library):
    given = REWARDS[:7]
    rollouts = credit.Rollouts(given, GROUPS[:7], MASK[:7], valid=np.arange(7) != 3)
    credit.validate(arrays(library, rollouts))
    assert np.isfinite(run(library, credit.GDPO(), rollouts).advantages).all()
    wrong = rollouts._replace(valid=np.ones(7, bool))
    for function in (credit.GDPO(), credit.validate):
        with pytest.raises(
            ValueError, match=r"rewards\[3, 0\] is nan; expected a finite number where `valid`"
        ):
            function(arrays(library, wrong))
    credit.validate(arrays(library, ROLLOUTS))
