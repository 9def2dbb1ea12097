"""Settings that stand where nothing reads them, in configurations as Hydra composes them."""

from pathlib import Path
from typing import Literal

import pytest
import verl
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

import credit
from credit.adapters.verl import misplaced
from credit.adapters.verl.misplaced import refuse_misplaced
from credit.adapters.verl.settings import Choice, parse_settings

VERL = Path(verl.__file__).parent
OTHERS = sorted(set(credit.names()) - {"mix"})  # which has no defaults
DGPO = "algorithm.adv_estimator=credit_dgpo"


def check(config):
    refuse_misplaced(config, parse_settings(config.algorithm).estimator)


@pytest.mark.parametrize(
    ("override", "path", "way_out"),
    [
        ("+algorithm.tau=0.05", "algorithm.tau", "write +algorithm.credit.tau=0.05"),
        ("+credit.tau=0.05", "credit.tau", "write +algorithm.credit.tau=0.05"),
        ("+tau=0.05", "tau", "write +algorithm.credit.tau=0.05"),
        ("+credit.tau=-1", "credit.tau", "write +algorithm.credit.tau=-1"),
        ("+trainer.tau=0.05", "trainer.tau", "write +algorithm.credit.tau=0.05"),
        ("+trainer.v1.kappa=0", "trainer.v1.kappa", "write +algorithm.credit.kappa=0"),
        ("+actor_rollout_ref.credit.tau=1", "actor_rollout_ref.credit.tau", "write +algorithm.credit.tau=1"),
        ("+actor_rollout_ref.tau=1", "actor_rollout_ref.tau", "write +algorithm.credit.tau=1"),
        ("+actor_rollout_ref.actor.tau=1", "actor_rollout_ref.actor.tau", "write +algorithm.credit.tau=1"),
        ("+actor_rollout_ref.actor.gamma=0.9", None, None),  # which is no setting of dgpo
        (
            "+actor_rollout_ref.actor.credit.tau=0.05",
            "actor_rollout_ref.actor.credit.tau",
            "write +algorithm.credit.tau=0.05",
        ),
        (
            "+algorithm.adv_estimator_kwargs.tau=0.05",
            "algorithm.adv_estimator_kwargs.tau",
            "write +algorithm.credit.tau=0.05",
        ),
        (
            "+advantage_estimator_kwargs.tau=1",
            "advantage_estimator_kwargs.tau",
            "write +algorithm.credit.tau=1",
        ),
        ("+algorithm.kwargs.tau=1", "algorithm.kwargs.tau", "write +algorithm.credit.tau=1"),
        ("+algorithm.credit_dgpo.tau=0.05", "algorithm.credit_dgpo.tau", "write +algorithm.credit.tau=0.05"),
        ("+credit_dgpo.tau=0.05", "credit_dgpo.tau", "write +algorithm.credit.tau=0.05"),
        ("+algorithm.dgpo.tau=0.05", "algorithm.dgpo.tau", "write +algorithm.credit.tau=0.05"),
        ("+algorithm.credits.tau=0.05", "algorithm.credits.tau", "write +algorithm.credit.tau=0.05"),
        ("+algorithm.Credit.tau=0.05", "algorithm.Credit.tau", "write +algorithm.credit.tau=0.05"),
        (
            "+algorithm.credt.tua=0.05",
            "algorithm.credt",
            "the settings of credit_dgpo go to algorithm.credit",
        ),
        ("+credit.dgpo.tau=0.05", "credit.dgpo.tau", "write +algorithm.credit.tau=0.05"),
        ("+credit.name=dgpo", "credit.name", "the name goes to algorithm.adv_estimator"),
        ("+algorithm.divergence=binary", "algorithm.divergence", "write +algorithm.credit.divergence=binary"),
        ("+trainer.divergence=binary", "trainer.divergence", "write +algorithm.credit.divergence=binary"),
        (
            "+algorithm.token_rewards=turn_scores",
            "algorithm.token_rewards",
            "credit.token_rewards=turn_scores",
        ),
        ("+algorithm.preset=verl", "algorithm.preset", "write +algorithm.credit.preset=verl"),
        ("+trainer.preset=verl", "trainer.preset", "write +algorithm.credit.preset=verl"),
        (
            "+algorithm.effective_fraction=null",
            "algorithm.effective_fraction",
            "credit.effective_fraction=null",
        ),
        (
            "+algorithm.loss={objective:sapo}",
            "algorithm.loss",
            "write +algorithm.credit.loss={objective:sapo}",
        ),
        (
            "+algorithm.tau={start:1.0,end:0.1}",
            "algorithm.tau",
            "write +algorithm.credit.tau={start:1.0,end:0.1}",
        ),
        (
            "+algorithm.filter_by=1",
            "algorithm.filter_by",
            "credit_dgpo has no filter_by, which is a setting of cr",
        ),
    ],
)
def test_a_misplaced_setting_is_named_with_its_place(configured, override, path, way_out):
    config = configured(DGPO, override)
    if path is None:
        check(config)
        return
    with pytest.raises(ValueError, match="nothing would read .*; a key of your own") as refused:
        check(config)
    text = str(refused.value)
    assert text.startswith(f"nothing would read {path} (")
    assert way_out in text


def test_all_of_them_are_named_at_once(configured):
    with pytest.raises(
        ValueError, match=r"credit\.kappa .*credit\.kappa=0\), algorithm\.tau .*credit\.tau=1"
    ):
        check(configured(DGPO, "+credit.kappa=0", "+algorithm.tau=1"))


def test_every_setting_of_every_estimator_is_found_in_algorithm(configured):
    composed = configured(DGPO)
    for name in OTHERS:
        config, estimator = composed.copy(), credit.get(name)
        settings = set(type(estimator).model_fields) - {"name", "gamma", "lam"}  # verl has two of these names
        with open_dict(config):
            config.algorithm.update(dict.fromkeys(settings, 1))
        with pytest.raises(ValueError, match="nothing would read") as refused:
            refuse_misplaced(config, estimator)
        for setting in settings:
            assert f"algorithm.{setting} (write +algorithm.credit.{setting}=1)" in str(refused.value)


def test_a_setting_of_a_part_goes_to_the_part(configured):
    parts = "+algorithm.credit.parts=[[1.0,rloo],[0.5,{name:dgpo,base:dapo}]]"
    for setting, owner in {"tau": "dgpo", "filter_by": "dapo", "eps": "dgpo or dapo"}.items():
        config = configured("algorithm.adv_estimator=credit_mix", parts, f"+algorithm.{setting}=1")
        with pytest.raises(ValueError, match=rf"\({setting} goes to {owner} within algorithm.credit\)"):
            check(config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["+algorithm.credit.tau=0.05"],
        ["algorithm.gamma=0.9", "algorithm.lam=0.9"],
        ["+my_section.tau=0.05", "+my_section.credit.tau=0.05"],
        ["+algorithm.my_curriculum.tau=0.05"],
        ["+tau=0.05", "+algorithm.credit.tau=${tau}"],
        ["+tau=hot", "+base=/a/folder", "+trainer.preset=fast", "+trainer.loss=mine"],
        ["+actor_rollout_ref.rollout.engine_kwargs.vllm.tau=1", "+reward_kwargs.tau=1"],
        ["+actor_rollout_ref.model.override_config.tau=1", "+ray_kwargs.ray_init.tau=1"],
        ["+actor_rollout_ref.actor.policy_loss.tau=1", "+data.tau=1"],
        ["+credit={score_column:rating}", "+trainer.eta=1", "+alpha=16"],
        ["+algorithm.pf_ppo={reweight_method:pow}", "++algorithm.filter_groups.enable=True"],
        ["algorithm.use_pf_ppo=True"],
    ],
    ids=str,
)
def test_verls_keys_and_the_users_own_pass(configured, overrides):
    check(configured(DGPO, *overrides))


def test_a_key_that_verl_ships_is_verls(configured, monkeypatch):
    """As if a later release had it: in a configuration, or in the dataclass of the section alone."""
    config = configured(DGPO, "+trainer.tau=0.05")
    with monkeypatch.context() as patch:
        patch.setattr(misplaced, "_read_shipped", lambda: ({"trainer": {"tau": None}},))
        check(config)
    with pytest.raises(ValueError, match="trainer.tau"):
        check(config)
    section = {"algorithm": {"_target_": "verl.trainer.config.AlgoConfig"}}
    assert misplaced._is_verls(section, "algorithm", "gdpo_reward_weights")
    assert not misplaced._is_verls({}, "algorithm", "gdpo_reward_weights")


SHIPPED = [
    "trainer/config/ppo_trainer.yaml",
    "trainer/config/ppo_megatron_trainer.yaml",
    *(str(path.relative_to(VERL)) for path in sorted(VERL.glob("experimental/*/config/*ppo*.yaml"))),
]


@pytest.mark.parametrize("path", SHIPPED)
def test_every_configuration_of_verls_passes(path):
    place, search = VERL / path, "hydra.searchpath=[pkg://verl.trainer.config]"
    with initialize_config_dir(str(place.parent), version_base=None):
        config = compose(place.stem, overrides=[search])
    for name in OTHERS:
        refuse_misplaced(config, credit.get(name))


def test_the_configurations_are_those_of_every_trainer():
    assert len(SHIPPED) >= 6
    assert len(misplaced._read_shipped()) >= 4


def test_a_setting_of_the_users_own_estimator_is_found(configured, own_registry):
    class Mine(credit.GRPO):
        name: Literal["mine"] = "mine"
        warmth: float = 1.0

    with pytest.raises(ValueError, match=r"trainer.warmth \(write \+algorithm.credit.warmth=2.0\)"):
        refuse_misplaced(configured("+trainer.warmth=2.0"), Mine())


def test_what_the_adapter_takes_beside_settings_is_known():
    """parse_settings takes each of them, and says of any other key that it is unknown."""
    found = {"source", "reward_keys"}  # of a Choice, found out from other options
    values = {"divergence": "exact", "token_rewards": "token_level_rewards", "statistics_memory_mb": 64}
    values |= {"record_steps": 10, "record_completions": 4}
    alone = {"record_path"}  # which is refused without record_steps
    assert set(values) | alone == set(Choice._fields) - {"estimator"} - found
    values["preset"] = "verl"
    assert set(values) | alone == misplaced.ADAPTERS
    for setting, value in values.items():
        parse_settings({"adv_estimator": "credit_dgpo", "credit": {setting: value}})
