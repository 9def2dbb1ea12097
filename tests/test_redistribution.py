"""The step from scores to weights: adaptive temperature, signs, turns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import credit
from credit import tokens
from credit.backends.arrays import group_max, group_sum

RNG = np.random.default_rng(0)


def fraction(weights, mask):
    inside = np.where(mask, weights, 0.0)
    return inside.sum(axis=1) ** 2 / (mask.sum(axis=1) * (inside**2).sum(axis=1))


def scores(rows=64, width=50):
    d = np.exp(RNG.normal(-5, 2, (rows, width)))
    mask = np.arange(width) < RNG.integers(2, width + 1, rows)[:, None]
    return d, mask


@pytest.mark.parametrize("target", [0.05, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_effective_fraction_hits_its_target(target, dtype):
    score, mask = scores()
    weights = tokens.redistribute_to_fraction(score.astype(dtype), mask, target, tau_min=1e-30, floor=0.0)
    attainable = 1 / mask.sum(axis=1) < target * 0.999
    assert attainable.any()
    np.testing.assert_allclose(fraction(weights, mask)[attainable], target, atol=2e-5)
    np.testing.assert_allclose(weights.sum(axis=1), mask.sum(axis=1), rtol=1e-5)


def test_an_unattainable_target_is_clipped_to_the_tied_tokens():
    score = np.array([[0.3, 0.3, 0.1, 0.0]])
    weights = tokens.redistribute_to_fraction(score, np.ones((1, 4), bool), 0.1, tau_min=1e-6, floor=0.0)
    np.testing.assert_allclose(weights, [[2, 2, 0, 0]], atol=1e-6)


def test_noise_keeps_uniform_weights_and_tau_has_a_floor():
    mask = np.ones((1, 8), bool)
    noise = 1e-9 * RNG.random((1, 8))
    assert (tokens.redistribute_to_fraction(noise, mask, 0.5, tau_min=1e-3, floor=4e-5) == 1).all()
    small = 1e-4 * RNG.random((1, 8))
    weights = tokens.redistribute_to_fraction(small, mask, 0.5, tau_min=1e-3, floor=0.0)
    np.testing.assert_allclose(weights, tokens.redistribute(small, mask, 1e-3), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:effective_fraction is missed")
def test_the_floor_scales_with_the_gate():
    kwargs = {"rewards": np.array([1.0, 0.0]), "groups": np.array([0, 0]), "mask": np.ones((2, 3), bool)}
    deviation = np.array([[0.0, 1e-3, 5e-4], [0.0, 3e-5, 1e-5]])
    rollouts = credit.Rollouts(**kwargs, deviation=deviation, normalized_entropy=np.full((2, 3), 0.1))
    weights = credit.DGPO(effective_fraction=0.5, tau_min=1e-9)(rollouts).weights
    assert weights[0].std() > 0.1
    assert (weights[1] == 1).all()


def test_the_attained_fraction_is_a_metric():
    score, mask = scores(rows=8)
    rollouts = credit.Rollouts(
        RNG.normal(size=8),
        np.zeros(8, int),
        mask,
        deviation=np.clip(score, 0, 1),
        normalized_entropy=mask / 2,
    )
    result = credit.DGPO(effective_fraction=0.6, tau_min=1e-9)(rollouts)
    assert abs(result.metrics["effective_token_fraction"] - 0.6) < 1e-4


def test_an_empty_response_and_a_nan_stay_where_they_are():
    mask = np.array([[False] * 3, [True] * 3, [True] * 3])
    score = np.array([[0.1, 0.2, 0.3], [0.1, np.nan, 0.3], [0.1, 0.2, 0.3]])
    weights = tokens.redistribute_to_fraction(score, mask, 0.5, tau_min=1e-3, floor=0.0)
    assert (weights[0] == 0).all()
    assert np.isnan(weights[1]).all()
    assert np.isfinite(weights[2]).all()


def rollouts_with(score, mask, rewards, **fields):
    return credit.Rollouts(
        np.asarray(rewards, float),
        np.zeros(len(rewards), int),
        mask,
        deviation=score,
        normalized_entropy=np.ones_like(score),
        **fields,
    )


def test_negative_advantages_follow_their_rule():
    score, mask = np.array([[0.1, 0.5], [0.1, 0.5]]), np.ones((2, 2), bool)
    rollouts = rollouts_with(score, mask, [1, 0])
    same, uniform, inverse = (
        credit.DGPO(tau=0.2, negative=rule)(rollouts).weights for rule in ("same", "uniform", "inverse")
    )
    assert (same[0] == uniform[0]).all()
    assert (same[0] == inverse[0]).all()
    assert (same[1] == same[0]).all()
    assert (uniform[1] == 1).all()
    np.testing.assert_allclose(inverse[1], same[0][::-1])


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_each_turn_keeps_its_own_credit(data):
    rows, width = 3, 8
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    mask, turns = rng.random((rows, width)) < 0.8, rng.integers(0, width, (rows, width))
    score = rng.random((rows, width))
    weights = tokens.redistribute(score, mask, 0.1, turns)
    for row in range(rows):
        for turn in range(width):
            own = mask[row] & (turns[row] == turn)
            if own.any():
                alone = tokens.redistribute(score[row][None], own[None], 0.1)
                np.testing.assert_allclose(weights[row][own], alone[0][own], rtol=1e-12)
                np.testing.assert_allclose(weights[row][own].sum(), own.sum())
    assert (weights[~mask] == 0).all()


def test_one_turn_is_the_response():
    score, mask = scores(rows=4, width=6)
    turns = np.full(score.shape, 3)
    np.testing.assert_allclose(
        tokens.redistribute(score, mask, 0.1, turns), tokens.redistribute(score, mask, 0.1)
    )


def test_turns_meet_their_own_target():
    score, mask = np.tile(np.array([0.0, 0.1, 0.3, 0.9]), (1, 2)), np.ones((1, 8), bool)
    turns = np.repeat([[0, 5]], 4, axis=1)
    weights = tokens.redistribute_to_fraction(score, mask, 0.5, tau_min=1e-9, floor=0.0, turns=turns)
    for part in (weights[:, :4], weights[:, 4:]):
        np.testing.assert_allclose(fraction(part, np.ones((1, 4), bool)), 0.5, atol=1e-5)


def test_a_turn_is_an_unbroken_run_of_the_mask(library):
    mask = [[1, 1, 0, 0, 1, 1, 0, 1], [1] * 8, [0, 1, 0, 1, 1, 0, 0, 1], [0] * 8]
    expected = [[0, 0, 0, 0, 1, 1, 0, 2], [0] * 8, [0, 0, 0, 1, 1, 0, 0, 2], [0] * 8]
    for dtype in (bool, np.int64):
        found = library.call(tokens.turns)(library.asarray(np.array(mask, dtype)))
        assert library.numpy(found).tolist() == expected


def test_turns_are_needed_where_asked_for():
    score, mask = scores(rows=2)
    with pytest.raises(ValueError, match="dgpo needs .*turns"):
        credit.DGPO(within="turn")(rollouts_with(np.clip(score, 0, 1), mask, [1, 0]))


@pytest.mark.parametrize("setting", [{"tau_min": 0.01}, {"floor": 1e-3}], ids=str)
def test_a_bound_of_the_target_is_refused_without_a_target(setting):
    with pytest.raises(ValueError, match="has no effect without effective_fraction"):
        credit.DGPO(**setting)
    target = credit.DGPO(**setting, effective_fraction=0.5)
    assert credit.parse(target.model_dump()) == target


def test_ids_under_the_mask_and_out_of_range():
    mask = np.array([[True, True, False]])
    score = np.array([[0.1, 0.2, 0.3]])
    known = tokens.redistribute(score, mask, 0.1, np.array([[0, 0, -7]]))
    assert np.isfinite(known).all()
    outside = tokens.redistribute(score, mask, 0.1, np.array([[0, 3, 0]]))
    np.testing.assert_array_equal(outside, [[1.0, np.nan, 0.0]])


@pytest.mark.parametrize(("reduce", "expected"), [(group_sum, [5.0, 5.0, 3.0]), (group_max, [4.0, 4.0, 3.0])])
def test_an_id_outside_takes_part_in_no_group(library, reduce, expected):
    values, ids = np.array([1.0, 4.0, 3.0, 9.0, 9.0], np.float32), np.array([0, 0, 2, -1, 5], np.int32)
    found = library.call(reduce)(library.asarray(values), library.asarray(ids))
    np.testing.assert_array_equal(library.numpy(found), [*expected, np.nan, np.nan])


def test_returns_to_go_pass_over_holes():
    mask = np.array([[True, False, True, True]])
    rewards = np.array([[1.0, 99.0, 2.0, 4.0]])
    np.testing.assert_allclose(tokens.returns_to_go(rewards, mask, 0.5), [[3.0, 0.0, 4.0, 4.0]])


@given(st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_returns_to_go_equal_the_recurrence(seed, gamma):
    rng = np.random.default_rng(seed)
    rewards, mask = rng.normal(size=(2, 13)), rng.random((2, 13)) < 0.7
    expected, running = np.zeros_like(rewards), np.zeros(2)
    for t in reversed(range(13)):
        running = np.where(mask[:, t], rewards[:, t] + gamma * running, running)
        expected[:, t] = np.where(mask[:, t], running, 0)
    np.testing.assert_allclose(tokens.returns_to_go(rewards, mask, gamma), expected, atol=1e-12)


@pytest.mark.parametrize("q", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_quantile_equals_numpys(q):
    values, mask = RNG.random((5, 7)), RNG.random((5, 7)) < 0.6
    assert tokens.quantile(values, mask, q) == pytest.approx(np.quantile(values[mask], q))
    assert tokens.quantile(values, np.zeros_like(mask), q) == 0
