"""The metrics and the warning of a target for the effective fraction that is not reached."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import arrays, on_numpy, run
from strategies import examples

import credit
from credit import hints

MARKS = ("target_fraction", "reached_fraction", "within_floor", "at_tau_min")
pytestmark = pytest.mark.filterwarnings("ignore:effective_fraction is missed")


def batch(scale, rows=4, width=40, seed=0, turns=None):
    """One group whose deviations are of that order of magnitude."""
    rng = np.random.default_rng(seed)
    mask = np.arange(width) < rng.integers(1, width + 1, (rows, 1))
    deviation = np.clip(scale * np.exp(rng.normal(size=(rows, width))), 0, 1)
    ones = np.ones((rows, width))
    ids = np.zeros(rows, int)
    return credit.Rollouts(
        rng.normal(size=rows), ids, mask, deviation=deviation, normalized_entropy=ones, turns=turns
    )


def in_loops(estimator, rollouts, weights):
    """The mean over all tokens of each of the MARKS."""
    found = []
    for row, mask in enumerate(rollouts.mask):
        by_turn = estimator.within == "turn"
        parts = np.unique(rollouts.turns[row][mask]) if by_turn else [None]
        for part in parts:
            own = mask & (rollouts.turns[row] == part) if by_turn else mask
            w = weights[row][own]
            if not len(w):
                continue
            alone = rollouts.rewards[row] < rollouts.rewards.mean() and estimator.negative == "uniform"
            goal = 1.0 if alone or len(w) < 2 else estimator.effective_fraction
            reached = w.sum() ** 2 / (len(w) * (w**2).sum())
            missed, flat = reached > goal + 0.01, (w == 1).all()
            found += [(goal, reached, missed and flat, missed and not flat)] * len(w)
    return dict(zip(MARKS, np.mean(found, axis=0), strict=True))


@on_numpy("negative", ["same", "uniform"], also=("torch", "strict"))
@pytest.mark.parametrize("within", ["response", "turn"])
@examples
@given(seed=st.integers(0, 10_000), magnitude=st.sampled_from((1e-9, 2e-5, 3e-4, 2e-3, 0.1)))
def test_target_and_reached_are_metrics(library, within, negative, seed, magnitude):
    turns = np.sort(np.random.default_rng(seed).integers(0, 5, (4, 40)), axis=1)
    rollouts = batch(magnitude, seed=seed, turns=turns)
    if library.name == "jax":  # which is compiled once
        rollouts = rollouts._replace(deviation=rollouts.deviation.astype(np.float32))
    estimator = credit.DGPO(effective_fraction=0.4, within=within, negative=negative)
    result = run(library, estimator, rollouts)
    for name, value in in_loops(estimator, rollouts, result.weights).items():
        np.testing.assert_allclose(result.metrics[f"{name}_mean"], value, rtol=1e-4, err_msg=name)


def test_a_mix_has_them_of_its_parts():
    aimed, rollouts = credit.DGPO(effective_fraction=0.4), batch(3e-4)
    mix = credit.Mix(parts=[(0.5, credit.GRPO()), (0.5, credit.Mix(parts=[(1, aimed)]))])
    alone, mixed = aimed(rollouts).metrics, mix(rollouts).metrics
    for mark in MARKS:
        assert mixed[f"mix_dgpo_{mark}_mean"] == alone[f"{mark}_mean"]
    assert not set(credit.Mix(parts=[(1, credit.DGPO())])(rollouts).metrics) & {
        f"dgpo_{m}_mean" for m in MARKS
    }


@pytest.mark.parametrize("library", ["numpy", "torch"], indirect=True)
@pytest.mark.parametrize(
    ("magnitude", "reason"),
    [(1e-9, "spread by no more than the noise"), (3e-4, "for which tau_min is too high")],
)
def test_a_missed_target_is_said_once(library, magnitude, reason):
    estimator, given = credit.DGPO(effective_fraction=0.4), arrays(library, batch(magnitude, width=200))
    with pytest.warns(
        UserWarning, match=f"effective_fraction is missed by .* of the tokens, .*{reason}"
    ) as said:
        estimator(given)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator(given)
        credit.Mix(parts=[(1, credit.DGPO(effective_fraction=0.2))])(given)


def test_a_reached_target_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = credit.DGPO(effective_fraction=0.4)(batch(0.1, width=200)).metrics
    assert abs(metrics["reached_fraction_mean"] - metrics["target_fraction_mean"]) < 1e-3


def test_what_is_traced_is_not_read():
    jax = pytest.importorskip("jax")
    given = jax.tree.map(jax.numpy.asarray, batch(1e-9, turns=np.zeros((4, 40), int)))
    closed_over = jax.jit(
        lambda rewards: credit.DGPO(effective_fraction=0.4)(given._replace(rewards=rewards))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = closed_over(given.rewards).metrics
    assert metrics["within_floor_mean"] > 0.5
    assert not hints._SAID
