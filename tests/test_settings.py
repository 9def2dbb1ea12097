"""Estimators as settings: the registry, what configurations may hold, and what happens to wrong ones."""

import json
import pickle
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import pytest
from named import NAMES, REQUIRED, make
from pydantic import BaseModel, ValidationError

import credit
from credit import DGPO, GRPO, Estimator, PolicyLoss, Rollouts
from credit.estimators.presets import PRESETS


def define(chosen, factor=1.0):
    """A user's estimator class, always of one module and qualified name."""

    class Scaled(GRPO):
        """GRPO, scaled."""

        name: Literal[chosen] = chosen
        scale: float = factor

        def advantages(self, rollouts):
            return self.scale * super().advantages(rollouts)

    return Scaled


def batch():
    return Rollouts(np.array([1, 0], np.float32), np.array([0, 0]), np.ones((2, 3), bool))


# --- the registry ----------------------------------------------------------------------------------------


def test_names_are_sorted_and_those_of_the_classes():
    assert list(credit.names()) == sorted(credit.names())
    assert {"dapo", "dgpo", "dr_grpo", "grpo", "rloo"} <= set(credit.names())
    for name in NAMES:
        assert make(name).name == name


def test_a_users_class_registers_itself(own_registry):
    define("scaled")
    assert "scaled" in credit.names()
    estimator = credit.parse({"name": "scaled", "scale": 3})
    np.testing.assert_allclose(estimator(batch()).advantages, 3 * GRPO()(batch()).advantages, rtol=1e-6)
    assert credit.get("scaled", scale=3) == estimator


def test_a_class_without_its_own_name_does_not_register(own_registry):
    before = credit.names()

    class Helper(GRPO):
        """Inherits GRPO's name and does not take its place."""

    assert credit.names() == before
    assert type(credit.get("grpo")) is GRPO
    assert Helper().name == "grpo"


def test_defining_a_class_again_replaces_it(own_registry):
    define("scaled", factor=1.0)
    again = define("scaled", factor=2.0)
    assert type(credit.get("scaled")) is again
    assert credit.get("scaled").scale == 2.0


def test_a_taken_name_is_refused(own_registry):
    with pytest.raises(ValueError, match=r"'dgpo' is taken by credit\.estimators\.dgpo\.DGPO"):
        define("dgpo")
    assert type(credit.get("dgpo")) is DGPO


def test_a_name_without_a_default_is_refused(own_registry):
    with pytest.raises(TypeError, match="Nameless needs a default name"):

        class Nameless(Estimator):
            """Its name is a type only."""

            name: str

    assert "Nameless" not in credit.names()


def test_an_estimator_without_advantages_says_so(own_registry):
    class Empty(Estimator):
        """Overrides nothing."""

        name: Literal["empty"] = "empty"

    with pytest.raises(NotImplementedError, match="Empty gives no advantages"):
        Empty()(batch())


# --- from configurations ---------------------------------------------------------------------------------


class Config(Mapping):
    """A framework's own mapping."""

    def __init__(self, **items):
        self.items_ = items

    def __getitem__(self, key):
        return self.items_[key]

    def __iter__(self):
        return iter(self.items_)

    def __len__(self):
        return len(self.items_)


@pytest.mark.parametrize(
    "value",
    [
        DGPO(tau=0.3, kappa=2.0),
        {"name": "dgpo", "tau": 0.3, "kappa": 2},
        {"name": "dgpo", "tau": "0.3", "kappa": "2"},
        json.loads('{"name": "dgpo", "tau": 3e-1, "kappa": 2.0}'),
        MappingProxyType({"name": "dgpo", "tau": 0.3, "kappa": 2}),
        Config(name="dgpo", tau=0.3, kappa=2, loss=Config(clip_low=0.2)),
        {"name": "dgpo", "tau": 0.3, "kappa": 2, "loss": '{"clip_high": 0.2}'},
        {"name": "dgpo", "tau": 0.3, "kappa": 2, "preset": "verl"},
        '{"name": "dgpo", "tau": 0.3, "kappa": "2"}',
    ],
    ids=lambda value: type(value).__name__,
)
def test_parse_accepts_what_configurations_carry(value):
    assert credit.parse(value) == DGPO(tau=0.3, kappa=2.0)


def test_parse_accepts_omegaconf():
    omegaconf = pytest.importorskip("omegaconf")
    text = "{name: dapo, correction: 0, loss: {clip_high: 0.3, dual_clip: null, aggregation: token_mean}}"
    estimator = credit.parse(omegaconf.OmegaConf.create(text))
    loss = PolicyLoss(clip_high=0.3, aggregation="token_mean")
    assert estimator == credit.DAPO(correction=0, loss=loss)


def test_parse_accepts_a_name():
    assert credit.parse("rloo") == credit.RLOO()


@pytest.mark.parametrize("text", ["inf", "Infinity", '"inf"'])
def test_an_infinite_tau_may_be_written(text):
    assert credit.parse({"name": "dgpo", "tau": text}).tau == float("inf")


@pytest.mark.parametrize(
    ("preset", "eps"),
    [("trl", 1e-4), ("ms-swift", 1e-4), ("slime", 1e-6), ("verl", 1e-6), ("openrlhf", 1e-9), ("skyrl", 1e-6)],
)
def test_a_preset_gives_a_frameworks_constants(preset, eps):
    assert credit.get("grpo", preset=preset) == GRPO(correction=1, eps=eps)
    assert credit.get("dgpo", preset=preset, tau=0.2) == DGPO(tau=0.2, eps=eps)
    assert credit.parse({"name": "dapo", "preset": preset}).eps == eps
    assert credit.get("grpo", preset=preset, eps=0.5).eps == 0.5


@pytest.mark.parametrize("preset", PRESETS)
def test_every_estimator_takes_every_preset(preset):
    for name in NAMES:
        made = credit.get(name, preset=preset, **REQUIRED.get(name, {}))
        assert credit.parse(made.model_dump()) == made
    unscaled = credit.get("gigpo", preset=preset, divide_by_std=False)
    assert credit.parse(unscaled.model_dump()) == unscaled == credit.GiGPO(divide_by_std=False)


def test_a_preset_leaves_alone_what_an_estimator_lacks():
    assert credit.get("rloo", preset="trl") == credit.RLOO()


# --- wrong settings --------------------------------------------------------------------------------------


def test_a_string_that_json_cannot_read_is_an_unknown_name():
    with pytest.raises(ValueError, match=r"unknown estimator '\[+'"):
        credit.parse("[" * 100_000)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gppo", "unknown estimator 'gppo'; known: .*dgpo, .*grpo"),
        ("123", "unknown estimator '123'; known: .*dgpo"),
        ({"name": ["grpo"]}, r"unknown estimator \['grpo'\]; known"),
        ({"name": "grpo", "preset": {"trl": 1}}, r"unknown preset \{'trl': 1\}; known"),
        ({"name": "grpo", 5: 1}, "a setting is named 5; expected names that are strings"),
        ({"name": "dapo", "loss": {1: 1, "x": 2}}, "unknown setting 'x', 1; PolicyLoss has"),
        ({"name": "gppo"}, "unknown estimator 'gppo'; known: .*dgpo, .*grpo"),
        ({"tau": 0.5}, "name is missing; known: .*dgpo"),
        ({"name": "dgpo", "tua": 0.5}, "unknown setting 'tua'; DGPO has .*kappa.*tau"),
        (
            {"name": "grpo", "preset": "areal"},
            "unknown preset 'areal'; known: ms-swift, .*skyrl, slime, trl, verl",
        ),
        ({"name": "dgpo", "tau": 0}, "tau"),
        ({"name": "dgpo", "tau": -1}, "tau"),
        ({"name": "dgpo", "tau": "nan"}, "tau"),
        ({"name": "dgpo", "tau": "hot"}, "tau"),
        ({"name": "dgpo", "tau": None}, "tau"),
        ({"name": "dgpo", "kappa": -0.1}, "kappa"),
        ({"name": "grpo", "eps": -1e-6}, "eps"),
        ({"name": "grpo", "correction": 2}, "correction"),
        ({"name": "grpo", "loss": {"clip_hihg": 0.3}}, "clip_hihg"),
        ('{"name": "dgpo", "tau": -1}', "tau"),
        ('{"tau": 0.5}', "name is missing; known: .*dgpo"),
        ("[1]", r"unknown estimator '\[1\]'; known: .*dgpo"),
        (3, "cannot make an estimator of int"),
        (None, "cannot make an estimator of NoneType"),
        ([], "cannot make an estimator of list"),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        credit.parse(value)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_lists_the_known_ones(name):
    kind = type(make(name))
    with pytest.raises(ValueError, match=re.escape(", ".join(sorted(kind.model_fields)))):
        make(name, no_such_setting=1)
    with pytest.raises(ValidationError):
        kind(no_such_setting=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_class_is_fixed(name):
    with pytest.raises(ValidationError, match="name"):
        type(make(name))(name="other", **REQUIRED.get(name, {}))


CLASSES_OF_SETTINGS = {name: (type(make(name)), REQUIRED.get(name, {})) for name in NAMES} | {
    "loss": (PolicyLoss, {}),
    "fixed horizon": (PolicyLoss, {"aggregation": "fixed_horizon"}),
    "schedule": (credit.Schedule, {"start": 1.0, "end": 0.5}),
}
MAY_BE_INFINITE = [("dgpo", "tau"), ("loss", "clip_high"), ("fixed horizon", "clip_high")]  # as they say


@pytest.mark.parametrize("name", CLASSES_OF_SETTINGS)
@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_no_setting_takes_what_is_not_finite(name, number):
    kind, required = CLASSES_OF_SETTINGS[name]
    for field in kind.model_fields:
        for value in (float(number), number, [float(number)], {"start": 1.0, "end": float(number)}):
            if (name, field) in MAY_BE_INFINITE and value in (float("inf"), "inf"):
                assert getattr(kind(**required | {field: value}), field) == float("inf")
                continue
            with pytest.raises(ValidationError, match=field):
                kind(**required | {field: value})


def test_no_factor_of_a_mix_takes_what_is_not_finite():
    with pytest.raises(ValidationError, match="finite number"):
        credit.Mix(parts=[(float("nan"), GRPO())])


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (DGPO(tau=0.3), {"tau": -1.0}),
        (DGPO(tau=0.3), {"tau": float("nan")}),
        (DGPO(tau=0.3), {"tua": 0.5}),
        (PolicyLoss(), {"horizon": 32}),
        (credit.Mix(parts=[(1.0, GRPO())]), {"parts": []}),
        (credit.Schedule(start=1.0, end=0.5), {"kind": "step"}),
    ],
    ids=repr,
)
def test_a_copy_is_validated_as_well(settings, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        settings.model_copy(update=wrong)


def test_a_copy_has_what_is_changed_and_keeps_the_rest():
    given = DGPO(tau=0.3, loss=PolicyLoss(clip_high=0.3))
    assert given.model_copy() == given.model_copy(deep=True) == given
    changed = given.model_copy(update={"kappa": "2"})
    assert changed == DGPO(tau=0.3, kappa=2.0, loss=PolicyLoss(clip_high=0.3))
    assert changed.model_fields_set == {"name", "tau", "kappa", "loss"}


# --- values ----------------------------------------------------------------------------------------------

CHANGED = {
    "dgpo": {"tau": float("inf"), "kappa": 0.0, "loss": PolicyLoss(dual_clip=3.0)},
    "grpo": {"eps": 1e-9, "correction": 0},
    "dr_grpo": {"loss": PolicyLoss(aggregation="fixed_horizon", horizon=4096)},
}
EVERY = [make(name) for name in NAMES] + [credit.get(n, **s) for n, s in CHANGED.items()]


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_round_trips(estimator):
    assert credit.parse(json.loads(estimator.model_dump_json())) == estimator
    assert type(estimator).model_validate_json(estimator.model_dump_json()) == estimator
    assert credit.parse(estimator.model_dump()) == estimator
    unpickled = pickle.loads(pickle.dumps(estimator))
    assert unpickled == estimator
    assert type(unpickled) is type(estimator)
    assert credit.parse(estimator) is estimator


def test_the_json_is_strict_json():
    text = credit.get("dgpo", tau=float("inf")).model_dump_json()
    assert "Infinity" not in re.sub(r'"[^"]*"', "", text)


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_equal_settings_are_equal_and_hash_alike(estimator):
    twin = credit.parse(estimator.model_dump())
    assert twin is not estimator
    assert twin == estimator
    assert hash(twin) == hash(estimator)
    assert len({twin, *EVERY}) == len(EVERY)


def test_an_integer_setting_equals_its_float():
    assert DGPO(tau=1) == DGPO(tau=1.0)
    assert hash(DGPO(tau=1)) == hash(DGPO(tau=1.0))


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_settings_are_frozen(estimator):
    for field in type(estimator).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(estimator, field, getattr(estimator, field))


def test_a_model_may_hold_an_estimator():
    class Settings(BaseModel):
        estimator: DGPO

    held = Settings(estimator={"tau": 0.2})
    assert held.estimator == DGPO(tau=0.2)
    assert Settings.model_validate_json(held.model_dump_json()) == held


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(REQUIRED)))
def test_every_setting_has_a_default_and_a_schema(name):
    schema = type(make(name)).model_json_schema()
    assert "required" not in schema
    assert schema["properties"]["name"]["const"] == name


def test_jax_does_not_trace_again_for_an_equal_estimator(own_registry):
    jax = pytest.importorskip("jax")
    traced = []

    class Counted(DGPO):
        """Notes each trace."""

        name: Literal["counted"] = "counted"

        def advantages(self, rollouts):
            traced.append(self.tau)
            return super().advantages(rollouts)

    scores = jax.numpy.ones((2, 3))
    given = jax.tree.map(jax.numpy.asarray, batch())._replace(deviation=scores, normalized_entropy=scores)
    alive = [Counted(tau=0.5), credit.parse({"name": "counted", "tau": 0.5}), Counted(tau=0.7)]
    for estimator in alive:
        jax.jit(estimator)(given)
        jax.jit(estimator)(given._replace(rewards=given.rewards + 1))
    assert traced == [0.5, 0.7]
