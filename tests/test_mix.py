"""Mixtures of estimators."""

import json
from types import FunctionType
from typing import Literal

import numpy as np
import pytest

import credit
from credit.estimators.presets import PRESETS

RNG = np.random.default_rng(0)
ROLLOUTS = credit.Rollouts(
    rewards=np.array([1.0, 0.0, 1.0, 1.0]),
    groups=np.array([0, 0, 1, 1]),
    mask=np.ones((4, 5), bool),
    deviation=RNG.random((4, 5)),
    normalized_entropy=RNG.random((4, 5)),
)
PARTS = [(0.7, credit.GRPO()), (0.3, credit.DGPO(tau=0.1))]


def test_a_mix_is_the_weighted_sum_of_its_parts():
    mix = credit.Mix(parts=PARTS)(ROLLOUTS)
    each = [part(ROLLOUTS) for _, part in PARTS]
    np.testing.assert_allclose(mix.advantages, 0.7 * each[0].advantages + 0.3 * each[1].advantages)
    np.testing.assert_allclose(mix.weights, 0.7 * each[0].weights + 0.3 * each[1].weights)
    assert mix.metrics["dgpo_deviation_mean"] == each[1].metrics["deviation_mean"]


def test_a_negative_factor_turns_the_advantages_and_not_the_weights():
    (_, one), (_, other) = PARTS
    mix = credit.Mix(parts=[(0.6, one), (-0.2, other)])(ROLLOUTS)
    each = one(ROLLOUTS), other(ROLLOUTS)
    np.testing.assert_allclose(mix.advantages, 0.6 * each[0].advantages - 0.2 * each[1].advantages)
    np.testing.assert_allclose(mix.weights, 0.75 * each[0].weights + 0.25 * each[1].weights)


def test_json_keeps_every_parts_settings():
    mix = credit.Mix(parts=PARTS)
    text = mix.model_dump_json()
    assert credit.parse(json.loads(text)) == mix
    assert json.loads(text)["parts"][1][1]["tau"] == 0.1
    assert hash(credit.parse(json.loads(text))) == hash(mix)


def test_parts_may_be_users_own_and_mixes():
    class Half(credit.GRPO):
        name: Literal["half_for_mix"] = "half_for_mix"

        def advantages(self, rollouts):
            return 0.5 * super().advantages(rollouts)

    mix = credit.parse({"name": "mix", "parts": [[2, "half_for_mix"], [1, {"name": "mix", "parts": PARTS}]]})
    expected = credit.GRPO()(ROLLOUTS).advantages + credit.Mix(parts=PARTS)(ROLLOUTS).advantages
    np.testing.assert_allclose(mix(ROLLOUTS).advantages, expected)


def test_needs_and_keep_are_combined():
    mix = credit.Mix(parts=[(1, credit.DAPO()), (1, credit.DGPO(kappa=0)), (1, credit.TopEntropy())])
    assert mix.needs == ("deviation", "normalized_entropy")
    assert mix.keep(ROLLOUTS).tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match="mix needs deviation and normalized_entropy"):
        mix(ROLLOUTS._replace(deviation=None))


def test_equal_names_are_numbered_in_the_metrics():
    mix = credit.Mix(parts=[(1, credit.DGPO(tau=0.1)), (-1, credit.DGPO(tau=1))])
    metrics = mix(ROLLOUTS).metrics
    assert {"dgpo_0_gate_mean", "dgpo_1_gate_mean"} <= set(metrics)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "at least 1"),
        ([[1, "nope"]], "unknown estimator 'nope'"),
        ([[1, {"name": "dgpo", "tua": 1}]], "tua"),
    ],
)
def test_wrong_parts_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        credit.Mix(parts=parts)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("grpo", lambda preset: credit.get("grpo", preset=preset)),
        (credit.GRPO(), lambda preset: credit.get("grpo", preset=preset)),
        ({"name": "dgpo", "tau": 0.1}, lambda preset: credit.get("dgpo", preset=preset, tau=0.1)),
        ('{"name": "dgpo", "tau": 0.1}', lambda preset: credit.get("dgpo", preset=preset, tau=0.1)),
        (credit.DGPO(tau=0.1), lambda preset: credit.get("dgpo", preset=preset, tau=0.1)),
        ("reinforce_plus_plus", lambda preset: credit.get("reinforce_plus_plus", preset=preset)),
        ({"name": "grpo", "eps": 0.5}, lambda preset: credit.get("grpo", preset=preset, eps=0.5)),
        (credit.GRPO(eps=0.5), lambda preset: credit.get("grpo", preset=preset, eps=0.5)),
        ({"name": "grpo", "preset": "trl"}, lambda _: credit.get("grpo", preset="trl")),
        ("rloo", lambda _: credit.RLOO()),
        (
            {"name": "mix", "parts": [[1, "grpo"]]},
            lambda preset: credit.Mix(parts=[(1, credit.get("grpo", preset=preset))]),
        ),
        (
            credit.Mix(parts=[(1, credit.GRPO())]),
            lambda preset: credit.Mix(parts=[(1, credit.get("grpo", preset=preset))]),
        ),
    ],
    ids=lambda value: "as alone" if isinstance(value, FunctionType) else str(value),
)
def test_a_preset_gives_a_part_what_it_gives_it_alone(preset, part, expected):
    mix = credit.Mix(parts=[(0.5, expected(preset))])
    assert credit.get("mix", preset=preset, parts=[[0.5, part]]) == mix
    assert credit.parse({"name": "mix", "preset": preset, "parts": [(0.5, part)]}) == mix
    if not isinstance(part, credit.Estimator):
        assert credit.parse({"name": "mix", "preset": preset, "parts": json.dumps([[0.5, part]])}) == mix
    assert credit.parse(json.loads(mix.model_dump_json())) == mix


def test_wrong_parts_and_presets_are_refused_with_a_preset_too():
    for part, message in (("nope", "unknown estimator 'nope'"), (3, "cannot make an estimator of int")):
        with pytest.raises(ValueError, match=message):
            credit.get("mix", preset="verl", parts=[[1, part]])
    with pytest.raises(
        ValueError, match="unknown preset 'areal'; known: ms-swift, .*skyrl, slime, trl, verl"
    ):
        credit.get("mix", preset="areal", parts=[[1, "grpo"]])


def test_returns_are_the_sum_of_those_of_the_parts():
    whole, discounted = credit.ReinforcePlusPlus(), credit.ReinforcePlusPlus(gamma=0.5)
    returns = credit.Mix(parts=[(0.7, whole), (-0.2, discounted)]).returns(ROLLOUTS)
    np.testing.assert_allclose(returns, 0.7 * whole.returns(ROLLOUTS) - 0.2 * discounted.returns(ROLLOUTS))
    assert credit.Mix(parts=[(1, whole), (1, credit.GRPO())]).returns(ROLLOUTS) is None
