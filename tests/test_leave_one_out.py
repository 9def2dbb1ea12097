"""A response against the others of its group: the formula, and the groups on which its float32 form spikes."""

from functools import partial

import numpy as np
import pytest
from named import PACKAGE, make
from running import run

import credit
from credit import GRPO, Rollouts, groups
from credit.estimators.group_relative import GroupRelative
from credit.selftest.estimators import make_rollouts


@pytest.mark.parametrize("correction", [0, 1])
def test_worked_example(library, correction):
    """The others are 1, 3 | 0, 3 | 0, 1: means 2, 1.5, 0.5 and deviations sqrt 2, 3 / sqrt 2, 1 / sqrt 2."""
    function = partial(groups.standardize, correction=correction, eps=0.0, leave_one_out=True)
    given = np.array([0, 1, 3], np.float32), np.zeros(3, np.int32), np.ones(3, bool)
    found = library.numpy(library.quick(function)(*map(library.asarray, given)))
    expected = np.array([-2, -0.5 * 2 / 3, 5]) / (2**0.5 if correction else 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def advantages(library, rewards, ids):
    batch = Rollouts(np.array(rewards, np.float32), np.array(ids), np.ones((len(ids), 1), bool))
    return run(library, GRPO(leave_one_out=True), batch).advantages[:, 0]


def test_one_response_beside_equal_ones_keeps_its_difference(library):
    """In float32 the mean of squares less the square of the mean gave up to -2075 here."""
    rows = [
        np.insert(np.full(7, usual, np.float32), place, single)
        for usual in (0.95, 0.35, 0.4, 0.3, 0.7, 1.0)
        for single in (0.0, 2.1)
        for place in (0, 3, 7)
    ]
    rewards = np.array(rows)
    found = advantages(library, rewards.ravel(), np.repeat(np.arange(len(rows)), 8)).reshape(-1, 8)
    usual = np.median(rewards, axis=1, keepdims=True)
    at = rewards != usual
    np.testing.assert_allclose(found[at], (rewards - usual)[at], rtol=1e-6)
    np.testing.assert_allclose(np.abs(found[~at]), 7**-0.5, rtol=1e-4)  # whatever the two rewards


def test_a_tiny_spread_of_the_others_counts_as_none(library):
    close = np.nextafter(np.float32(0.7), np.float32(1))
    rewards = [0.0, close, 0.7, 0.7, 0.0, 1.0, 1.01, 0.99]  # the second group's others deviate by 0.01
    found = advantages(library, rewards, [0] * 4 + [1] * 4)
    np.testing.assert_allclose(found[[0, 4]], [-0.7, -100], rtol=2e-4)


def test_pairs_and_groups_of_one(library):
    found = advantages(library, [1.0, 0.25, 7.0, np.nan, 2.0], [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(found, [0.75, -0.75, 0, 0, 0])


def test_equals_nemo_rl_where_that_is_exact():
    """Written anew from its code, in float64: a matrix leaves each row out, and E[r^2] - E[r]^2 is the rest."""
    rng = np.random.default_rng(0)
    for rewards in (rng.normal(size=8), rng.integers(0, 2, 8).astype(float), [0, 0, 0, 1, 0.5, 0, 1, 1]):
        rewards = np.asarray(rewards, float)
        without = (1 - np.eye(8)) / 7
        mean = without @ rewards
        std = np.sqrt(np.clip((without @ rewards**2 - mean**2) * 7 / 6, 0, None))
        theirs = (rewards - mean) / np.where(std > 1e-7, std + 1e-6, 1)
        batch = Rollouts(rewards, np.zeros(8, int), np.ones((8, 1), bool))
        found = GRPO(leave_one_out=True)(batch).advantages[:, 0]
        np.testing.assert_allclose(found, theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in PACKAGE if issubclass(PACKAGE[name], GroupRelative)])
def test_all_of_its_kin_have_it(name):
    given = make_rollouts()
    kin = credit.get(name, leave_one_out=True)
    assert (kin(given).advantages != make(name)(given).advantages).any()
