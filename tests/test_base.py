"""Token credit on the advantage of another estimator."""

import json
import pickle
from typing import Literal

import numpy as np
import pytest
import running
import strategies
from hypothesis import given
from named import NAMES, make

import credit
from credit.estimators.on_baseline import Base
from credit.estimators.prepare import prepare_rollouts
from credit.estimators.presets import PRESETS

BASES = [name for name in NAMES if make(name).is_uniform]
MIXED = credit.Mix(parts=[(0.5, credit.RLOO()), (2.0, credit.GDPO(over="tokens"))])
UNIFORM = [*map(make, BASES), credit.GDPO(over="tokens"), MIXED]
FORMS = [
    credit.DGPO(base="rloo"),
    credit.DGPO(base=credit.GDPO(reward_weights=(1, 0.5))),
    credit.TopEntropy(base=credit.GRPO(correction=0, eps=0.1)),
    credit.EntropyShaped(base=MIXED),
]


def draw_rollouts(rewards=None):
    """Eight rows in two groups, with every optional field."""
    given = np.arange(8) % 3 if rewards is None else rewards
    mask = np.tri(8, strategies.T, dtype=bool)
    return credit.Rollouts(given, np.arange(8) // 4, mask, **strategies.token_fields(0))


def test_the_bases_are_the_estimators_with_one_advantage_per_response():
    others = {"dgpo", "entropy_shaped", "gtpo", "mix", "mt_grpo", "reinforce_plus_plus", "top_entropy"}
    assert set(NAMES) - set(BASES) - others == set()
    assert {"dapo", "dr_grpo", "gdpo", "grpo", "lite_ppo", "max_rl", "opo", "remax", "rloo"} <= set(BASES)


@running.on_numpy("estimator", UNIFORM, also=["torch"], everywhere=["gdpo"], label=lambda e: e.name)
@strategies.examples
@given(batch=strategies.rollouts())
def test_every_token_gets_what_advantages_say(library, estimator, batch):
    """The advantages of the few that whiten over tokens are computed per response too."""

    def both(rollouts):
        prepared = prepare_rollouts(estimator.name, rollouts, estimator.required_fields)
        return estimator.advantages(prepared), estimator(rollouts).advantages, prepared.mask

    alone, every, mask = map(library.numpy, library.quick(both)(running.arrays(library, batch)))
    unit = max(1.0, np.abs(every).max())
    np.testing.assert_allclose(every, np.where(mask, alone[:, None], 0), rtol=1e-5, atol=1e-5 * unit)


@running.on_numpy("kind", [credit.DGPO, credit.TopEntropy], label=lambda kind: kind.__name__)
@pytest.mark.parametrize("base", BASES)
def test_weights_are_the_estimators_and_advantages_the_bases(library, kind, base):
    rollouts = draw_rollouts()
    alone = running.run(library, make(base), rollouts).advantages
    weights = running.run(library, kind(), rollouts).weights
    found = running.run(library, kind(base=base), rollouts)
    np.testing.assert_array_equal(found.weights, weights)
    np.testing.assert_allclose(found.advantages, alone * weights, rtol=1e-5, atol=1e-6)
    assert np.abs(found.advantages).max() > 0.1


def test_grpo_as_the_base_is_the_default(library):
    rollouts = draw_rollouts()
    for kind in (credit.DGPO, credit.EntropyShaped):
        default, named = (running.run(library, each, rollouts) for each in (kind(), kind(base="grpo")))
        np.testing.assert_array_equal(named.advantages, default.advantages)


def test_several_rewards_reach_the_base():
    rewards = np.random.default_rng(0).normal(size=(8, 2))
    rollouts, gdpo = draw_rollouts(rewards), credit.GDPO(reward_weights=(1, 0.5))
    found = credit.DGPO(tau=0.1, base=gdpo)(rollouts)
    np.testing.assert_allclose(found.advantages, found.weights * gdpo(rollouts).advantages, rtol=1e-12)
    with pytest.raises(ValueError, match=r"rloo takes one reward per response"):
        credit.DGPO(base="rloo")(rollouts)


@pytest.mark.parametrize("estimator", FORMS, ids=lambda each: f"{each.name} on {each.base.name}")
def test_a_base_survives_what_settings_survive(estimator):
    base, kind = estimator.base, type(estimator)
    forms = [estimator.base, base.model_dump(), base.model_dump_json(), json.loads(base.model_dump_json())]
    assert {kind(base=form) for form in forms} == {estimator}
    for partial in ({}, {"exclude_unset": True}, {"exclude_defaults": True}, {"exclude_none": True}):
        dumped = estimator.model_dump_json(**partial)
        assert credit.parse(dumped) == credit.parse(estimator.model_dump(**partial)) == estimator
        assert hash(credit.parse(dumped)) == hash(estimator)
    assert pickle.loads(pickle.dumps(estimator)) == estimator
    assert estimator != kind()
    choices = kind.model_json_schema()["properties"]["base"]["anyOf"]
    assert {choice.get("type") for choice in choices} == {None, "string", "object", "null"}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "base", ["grpo", "reinforce_plus_plus_baseline", "gpg", {"name": "grpo", "eps": 0.5}]
)
def test_a_preset_reaches_the_base(preset, base):
    alone = credit.parse({"preset": preset, **({"name": base} if isinstance(base, str) else base)})
    expected = credit.DGPO(base=alone)
    assert credit.get("dgpo", preset=preset, base=base) == expected
    assert credit.get("dgpo", preset=preset, base=credit.parse(base)) == expected
    mix = credit.get("mix", preset=preset, parts=[(1, {"name": "dgpo", "base": base})])
    assert mix == credit.Mix(parts=[(1, expected)])
    assert credit.get("dgpo", preset=preset, base=None) == credit.get("dgpo", preset=preset)


@pytest.mark.parametrize("base", [name for name in NAMES if name not in BASES and name != "mix"])
def test_a_base_that_tells_tokens_apart_is_refused(base):
    with pytest.raises(ValueError, match=f"its base {base} gives them different ones; take a base such as"):
        credit.DGPO(base=base)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("nope", "unknown estimator 'nope'"),
        (3, "cannot make an estimator of int"),
        ({"name": "rloo", "tau": 1}, "unknown setting 'tau'; RLOO has"),
        (credit.Mix(parts=[(1, credit.DGPO())]), "its base mix gives them different ones"),
    ],
)
def test_a_wrong_base_is_refused(base, message):
    with pytest.raises(ValueError, match=message):
        credit.DGPO(base=base)


def test_needs_and_rows_to_keep_are_the_bases_too():
    assert credit.DGPO(base="remax").needs == ("deviation", "normalized_entropy", "baseline_rewards")
    assert credit.DGPO(kappa=0, base="grpo_s").needs == ("deviation", "normalized_entropy")
    with pytest.raises(ValueError, match="baseline_rewards of the rollouts is None"):
        credit.DGPO(base="remax")(draw_rollouts()._replace(baseline_rewards=None))
    rollouts = draw_rollouts(np.array([1, 0, 0, 1, 2, 2, 2, 2]))
    assert credit.DGPO(base="dapo").keep(rollouts).tolist() == [True] * 4 + [False] * 4
    assert credit.DGPO(base="grpo").keep(rollouts).all()
    mix = credit.Mix(parts=[(1, credit.GRPO()), (1, credit.DGPO(base="dapo"))])
    assert mix.keep(rollouts).tolist() == [True] * 4 + [False] * 4


def test_a_base_that_reads_tokens_is_not_taken_in_blocks():
    taken = {base: credit.DGPO(base=base).runs_in_blocks for base in BASES}
    assert [base for base in BASES if not taken[base]] == ["grpo_s"]
    assert not credit.DGPO(base=MIXED).runs_in_blocks


@pytest.mark.usefixtures("own_registry")
def test_users_own_estimators_have_and_are_bases():
    class Halved(credit.RLOO):
        name: Literal["halved_for_base"] = "halved_for_base"

        def advantages(self, rollouts):
            return 0.5 * super().advantages(rollouts) + 0 * rollouts.baseline_rewards

        @property
        def needs(self):
            return ("baseline_rewards",)

    class Certain(credit.Redistributing):
        name: Literal["certain_for_base"] = "certain_for_base"
        base: Base = "halved_for_base"

        @property
        def needs(self):
            return ("normalized_entropy",)

        def score(self, rollouts):
            return -rollouts.normalized_entropy

    rollouts = draw_rollouts()
    own, named = Certain(tau=0.1), credit.parse({"name": "certain_for_base", "tau": 0.1, "base": "rloo"})
    assert own.required_fields == ("normalized_entropy", "baseline_rewards")
    np.testing.assert_allclose(own(rollouts).advantages, 0.5 * named(rollouts).advantages, rtol=1e-12)
    assert credit.get("certain_for_base", preset="trl", tau=0.1) == own
