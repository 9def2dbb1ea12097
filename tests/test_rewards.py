"""The overlong penalty and dynamic sampling, on every library."""

from functools import cache

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from named import NAMES, make
from running import arrays, on_numpy
from strategies import N, T, examples, token_fields

import credit
from credit import DAPO, DGPO, GRPO, Mix, Rollouts

PAPER = {"max_length": 20480, "cache_length": 4096}


@cache  # one function per limits, or JAX compiles each
def limited(max_length, cache_length):
    return lambda lengths: credit.overlong_penalty(lengths, max_length, cache_length)


def penalty(library, lengths, max_length, cache_length):
    return library.numpy(library.call(limited(max_length, cache_length))(library.asarray(lengths)))


def test_worked_example(library):
    lengths = np.array([0, 16384, 16385, 18432, 20480, 20481, 10**6], np.int32)
    actual = penalty(library, lengths, **PAPER)
    np.testing.assert_allclose(actual, [0, 0, -1 / 4096, -0.5, -1, -1, -1], rtol=1e-6)
    assert actual.dtype == np.float32
    assert actual[0] == actual[1] == 0


@on_numpy("limits", [(16, 4), (1, 1), (12, 12), (20480, 4096)], everywhere=[(20480, 4096)])
@examples
@given(lengths=st.lists(st.integers(0, 40) | st.integers(16000, 21000), min_size=8, max_size=8))
def test_equals_the_oracle(library, limits, lengths):
    actual = penalty(library, np.array(lengths, np.int32), *limits)
    expected = [oracle.overlong_penalty(length, *limits) for length in lengths]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_lengths_of_any_type_give_float32(library, dtype):
    lengths = np.array([3, 14, 15, 16, 200], dtype)
    actual = penalty(library, lengths, max_length=16, cache_length=4)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, [0, -0.5, -0.75, -1, -1], rtol=1e-6)


def test_float64_lengths_give_float64():
    lengths = np.array([18432.0])
    assert credit.overlong_penalty(lengths, **PAPER).dtype == np.float64


@pytest.mark.parametrize(("max_length", "cache_length"), [(16, 0), (16, 17), (16, -1), (0, 0)])
def test_a_wrong_cache_is_refused(max_length, cache_length):
    with pytest.raises(ValueError, match=f"cache_length is {cache_length}; expected 1..max_length"):
        credit.overlong_penalty(np.array([3]), max_length, cache_length)


def test_lengths_must_be_an_array():
    with pytest.raises(ValueError, match="lengths is a list"):
        credit.overlong_penalty([3, 4], 16, 4)


# --- keep ------------------------------------------------------------------------------------------------


def keep(library, estimator, rollouts):
    return library.numpy(library.call(estimator.keep)(arrays(library, rollouts))).tolist()


def batch(rewards, groups, valid=None):
    rewards = np.array(rewards, np.float32)
    groups = np.array(groups)
    valid = None if valid is None else np.array(valid)
    return Rollouts(rewards, groups, np.ones((len(groups), 2), bool), valid=valid)


def test_dapo_keeps_the_groups_that_vary(library):
    given = batch([1, 1, 0, 1, 0, 0.5], [5, 0, 5, 0, 2, 3])
    assert keep(library, DAPO(), given) == [True, False, True, False, False, False]
    assert keep(library, GRPO(), given) == [True] * 6


def test_the_smallest_difference_counts(library):
    close = np.nextafter(np.float32(0.7), np.float32(1))
    given = batch([0.7] * 5 + [close] + [0.7] * 3, [0] * 6 + [1] * 3)
    assert keep(library, DAPO(), given) == [True] * 6 + [False] * 3


def test_an_invalid_row_is_no_signal(library):
    given = batch([1, np.nan, 1, 0, np.inf, 1], [0, 0, 0, 1, 1, 1])
    assert keep(library, DAPO(), given) == [False] * 3 + [True] * 3
    by_field = batch([1, 0, 1, 0, 1, 1], [0, 0, 0, 1, 1, 1], [True, False, True, True, True, False])
    assert keep(library, DAPO(), by_field) == [False] * 3 + [True] * 3
    assert keep(library, DAPO(), batch([np.nan] * 2, [0, 0])) == [False] * 2


def test_any_of_several_rewards_keeps_a_group(library):
    rewards = [[1, 0], [1, 0], [0, 2], [0, 3], [1, 0], [0, 1], [7, np.inf], [8, 1]]
    given = batch(rewards, [0, 0, 1, 1, 2, 2, 3, 3])
    expected = [False] * 2 + [True] * 4 + [False] * 2
    assert keep(library, DAPO(), given) == expected == oracle.keep(DAPO(), given)
    assert keep(library, GRPO(), given) == [True] * 8


@pytest.mark.parametrize("filter_by", ["any", "total", 0, 1])
def test_a_reward_that_was_not_given_is_no_signal(library, filter_by):
    rewards = [
        [7, np.nan],
        [7, 1],
        [7, np.nan],
        [8, np.nan],
        [np.nan, 1],
        [np.nan, 2],
        [np.nan, np.nan],
        [3, 1],
    ]
    given = batch(rewards, [0, 0, 1, 1, 2, 2, 3, 3])
    alive = {"any": [1, 2], "total": [0, 1, 2], 0: [1], 1: [2]}[filter_by]
    expected = [label in alive for label in given.groups]
    chosen = DAPO(filter_by=filter_by)
    assert keep(library, chosen, given) == expected == oracle.keep(chosen, given)


FORMAT_ALONE = batch([[0, 0.02], [0, 0], [1, 0.5], [0, 0.5], [0, 1], [1, 0]], [0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    ("filter_by", "kept"),
    [("any", [True] * 6), (0, [False] * 2 + [True] * 4), (1, [True, True, False, False, True, True])]
    + [("total", [True] * 4 + [False] * 2)],
)
def test_a_chosen_reward_decides(library, filter_by, kept):
    chosen = DAPO(filter_by=filter_by)
    assert keep(library, chosen, FORMAT_ALONE) == kept == oracle.keep(chosen, FORMAT_ALONE)
    assert keep(library, DGPO(base=chosen), FORMAT_ALONE) == kept
    assert keep(library, Mix(parts=[(1, GRPO()), (1, chosen)]), FORMAT_ALONE) == kept


def test_a_reward_that_is_not_there_cannot_decide():
    with pytest.raises(ValueError, match=r"filter_by=2, and the rollouts have 2 rewards per .* 0\.\.1"):
        DAPO(filter_by=2).keep(FORMAT_ALONE)
    single = FORMAT_ALONE._replace(rewards=FORMAT_ALONE.rewards[:, 0])
    with pytest.raises(ValueError, match=r"filter_by=1, and the rollouts have 1 reward per .* 0\.\.0"):
        DAPO(filter_by=1).keep(single)
    for chosen in (0, "any", "total"):
        assert DAPO(filter_by=chosen).keep(single).tolist() == [False] * 2 + [True] * 4
    for wrong in (-1, 0.5, "format"):
        with pytest.raises(ValueError, match="filter_by"):
            DAPO(filter_by=wrong)


def test_keep_is_only_advice(library):
    given = arrays(library, batch([1, 1, 0, 1], [0, 0, 1, 1]))
    advantages = library.numpy(library.call(DAPO())(given).advantages)
    assert advantages.shape == (4, 2)
    assert (advantages[2:] != 0).all()


@on_numpy("name", sorted(set(NAMES) - {"gdpo", "mix"}), everywhere=["dgpo"])  # gdpo takes several
def test_several_rewards_are_refused_where_one_is_needed(library, name):
    rewards = np.eye(N, 2, dtype=np.float32)
    given = Rollouts(rewards, np.zeros(N, int), np.ones((N, T), bool), **token_fields(0))
    with pytest.raises(ValueError, match=rf"{name} takes one reward per response.*\(8, 2\)"):
        make(name)(arrays(library, given))
