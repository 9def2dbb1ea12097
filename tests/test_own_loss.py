"""The `loss` of an estimator: a mapping changes its own, a PolicyLoss replaces it, and dumps are read back."""

import json
from types import MappingProxyType
from typing import Literal

import pytest
from named import NAMES, PACKAGE, REQUIRED, make
from pydantic import Field

import credit
from credit import GRPO, PolicyLoss

CHANGES = (
    {"kl_coefficient": 0.1},
    {"clip_low": 0.1, "rollout_cap": 2.0},
    {"aggregation": "sequence_sum"},
    {"dual_clip": 3.0},
    {},
)


class Scaled(PolicyLoss):
    """A user's loss with a setting of its own."""

    scale: float = 1.0


def from_omegaconf(value):
    return pytest.importorskip("omegaconf").OmegaConf.create(value)


def settings_of(name, loss):
    return {"name": name, **REQUIRED.get(name, {}), "loss": loss}


FORMS = {
    "dict": lambda name, loss: credit.parse(settings_of(name, loss)),
    "json": lambda name, loss: credit.parse(settings_of(name, json.dumps(loss))),
    "omegaconf": lambda name, loss: credit.parse(from_omegaconf(settings_of(name, loss))),
    "mapping": lambda name, loss: credit.get(**settings_of(name, MappingProxyType(loss))),
    "class": lambda name, loss: PACKAGE[name](**settings_of(name, loss)),
    "json of the class": lambda name, loss: PACKAGE[name].model_validate_json(
        json.dumps(settings_of(name, loss))
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_a_mapping_does_not_name_stays_the_estimators_own(form):
    for name in NAMES:
        own = make(name).loss
        for change in CHANGES:
            assert FORMS[form](name, change).loss == own.model_copy(update=change)


def test_a_loss_replaces_the_whole():
    loss = PolicyLoss(kl_coefficient=0.1)
    assert credit.DAPO(loss=loss).loss == loss
    assert credit.parse({"name": "dapo", "loss": loss}).loss == loss


@pytest.mark.parametrize(
    "loss",
    [
        PolicyLoss(kl_coefficient=0.1),
        PolicyLoss(),
        PolicyLoss(clip_high=float("inf")),
        PolicyLoss.from_paper("icepop"),
        {"kl_coefficient": 0.1},
    ],
    ids=repr,
)
def test_a_dump_is_read_as_the_same_loss(loss):
    for name in NAMES:
        estimator = credit.parse(settings_of(name, loss))
        for left_out in ("exclude_unset", "exclude_defaults", "exclude_none"):
            assert credit.parse(estimator.model_dump(**{left_out: True})) == estimator
        assert credit.parse(json.loads(estimator.model_dump_json())) == estimator


def test_a_default_loss_is_left_out_of_a_dump_without_defaults():
    estimator = credit.DAPO(eps=0.5)
    assert estimator.model_dump(exclude_defaults=True) == {"name": "dapo", "eps": 0.5}
    assert estimator.model_dump(exclude_defaults=True, exclude={"name"}) == {"eps": 0.5}
    mix = credit.Mix(parts=[(0.5, estimator), (0.5, credit.DGPO(tau=0.1))])
    assert credit.parse(mix.model_dump(exclude_defaults=True)) == mix


def test_the_schema_of_a_dump_lists_the_settings():
    properties = credit.DAPO.model_json_schema(mode="serialization")["properties"]
    assert set(properties) == set(credit.DAPO.model_fields)


def test_a_users_own_loss_is_changed_however_it_is_given(own_registry):
    class Default(GRPO):
        name: Literal["default"] = "default"
        loss: PolicyLoss = Scaled(clip_low=0.1, scale=2.0)

    class Factory(GRPO):
        name: Literal["factory"] = "factory"
        loss: Scaled = Field(default_factory=lambda: Scaled(clip_low=0.1, scale=2.0))

    class OfOthers(GRPO):
        name: Literal["of_others"] = "of_others"
        loss: Scaled = Field(
            default_factory=lambda others: Scaled(clip_low=0.1, scale=2.0 * (others["name"] == "of_others"))
        )

    for name in ("default", "factory", "of_others"):
        estimator = credit.get(name, eps=0.0, loss={"clip_high": 0.3})
        assert estimator.loss == Scaled(clip_low=0.1, clip_high=0.3, scale=2.0)
        other = credit.get(name, loss=Scaled(scale=5.0))
        for each in (estimator, other):
            assert credit.parse(json.loads(each.model_dump_json())) == each
            assert credit.parse(each.model_dump()).loss == each.loss


def test_without_a_loss_of_its_own_the_mapping_is_the_whole(own_registry):
    class Lossless(GRPO):
        name: Literal["lossless"] = "lossless"
        loss: PolicyLoss

    assert credit.get("lossless", loss={"clip_low": 0.1}).loss == PolicyLoss(clip_low=0.1)
    with pytest.raises(ValueError, match="loss"):
        credit.get("lossless")


@pytest.mark.parametrize(
    ("own", "change", "left"),
    [
        (
            PolicyLoss(aggregation="fixed_horizon", horizon=64),
            {"aggregation": "token_mean"},
            {"horizon": None},
        ),
        (PolicyLoss(dual_clip=3.0), {"objective": "cispo"}, {"dual_clip": None}),
    ],
    ids=repr,
)
def test_a_change_that_leaves_an_own_setting_without_effect_is_refused(own_registry, own, change, left):
    class Own(GRPO):
        name: Literal["own"] = "own"
        loss: PolicyLoss = own

    ((name, value),) = left.items()
    with pytest.raises(ValueError, match=rf"{name}=.* has no effect .*estimator's own, set it to {value}"):
        credit.get("own", loss=change)
    assert credit.get("own", loss=change | left).loss == PolicyLoss(**change)


def test_a_wrong_setting_of_the_loss_is_named():
    with pytest.raises(ValueError, match=r"loss(.|\n)*unknown setting 'clip_hihg'; PolicyLoss has"):
        credit.get("dapo", loss={"clip_hihg": 0.3})
    with pytest.raises(ValueError, match=r"loss\.clip_high"):
        credit.get("dapo", loss={"clip_high": -1})
