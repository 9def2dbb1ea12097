"""Settings that follow the training's progress."""

import json

import numpy as np
import pytest

import credit
from credit import Schedule


def rollouts(progress, xp=np):
    rng = np.random.default_rng(0)
    fields = {
        "rewards": rng.normal(size=4).astype(np.float32),
        "groups": np.zeros(4, np.int32),
        "mask": np.ones((4, 6), bool),
        "deviation": rng.random((4, 6)).astype(np.float32),
        "normalized_entropy": rng.random((4, 6)).astype(np.float32),
        "progress": np.float32(progress),
    }
    return credit.Rollouts(**{name: xp.asarray(value) for name, value in fields.items()})


@pytest.mark.parametrize(
    ("kind", "progress", "value"),
    [
        ("linear", 0.0, 1.0),
        ("linear", 0.25, 0.775),
        ("linear", 1.0, 0.1),
        ("linear", 7.0, 0.1),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.55),
        ("cosine", 1.0, 0.1),
    ],
)
def test_a_scheduled_setting_equals_the_constant_of_the_moment(kind, progress, value):
    moving = credit.DGPO(tau=Schedule(start=1.0, end=0.1, kind=kind))(rollouts(progress))
    fixed = credit.DGPO(tau=value)(rollouts(progress))
    np.testing.assert_allclose(moving.advantages, fixed.advantages, rtol=1e-5)


@pytest.mark.parametrize("setting", ["tau", "kappa", "effective_fraction"])
def test_every_number_of_the_redistribution_can_be_scheduled(setting):
    estimator = credit.DGPO(**{setting: Schedule(start=0.9, end=0.2)})
    first, last = (estimator(rollouts(p)).weights for p in (0.0, 1.0))
    assert abs(first - last).max() > 1e-3


def test_progress_is_needed():
    with pytest.raises(ValueError, match="dgpo needs .*progress"):
        credit.DGPO(tau=Schedule(start=1, end=0.1))(rollouts(0.0)._replace(progress=None))


def test_json_and_mappings():
    estimator = credit.parse({"name": "dgpo", "tau": {"start": 1, "end": 0.1, "kind": "cosine"}})
    assert estimator == credit.DGPO(tau=Schedule(start=1, end=0.1, kind="cosine"))
    assert credit.parse(json.loads(estimator.model_dump_json())) == estimator
    assert credit.get("dgpo", tau="0.5") == credit.DGPO(tau=0.5)


@pytest.mark.parametrize("wrong", [{"start": 1, "end": 0}, {"start": -1, "end": 1}, {"start": 1}])
def test_both_ends_stay_within_the_settings_bounds(wrong):
    with pytest.raises(ValueError, match="greater than|required"):
        credit.parse({"name": "dgpo", "tau": wrong})


@pytest.mark.parametrize("end", [float("inf"), float("nan")])
def test_an_end_that_is_not_finite_is_refused(end):
    # On the way to infinity 0 * inf is NaN, and so would be the first step's advantages.
    with pytest.raises(ValueError, match="finite"):
        Schedule(start=0.5, end=end)


def test_a_jitted_estimator_is_traced_once():
    jax = pytest.importorskip("jax")
    traces = []

    class Counting(credit.DGPO):
        def score(self, rollouts):
            traces.append(1)
            return super().score(rollouts)

    run = jax.jit(Counting(tau=Schedule(start=1.0, end=0.1)))
    results = [np.asarray(run(rollouts(p, jax.numpy)).weights) for p in (0.0, 0.5, 1.0)]
    assert len(traces) == 1
    assert abs(results[0] - results[2]).max() > 1e-3
