"""What the adapter refuses, and that it does so when a config or a learner is made."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from tunix.rl import function_registry
from tunix.rl.rl_cluster import Role

import credit
from credit.adapters.tunix import CreditGRPOConfig, CreditGRPOLearner, register, registry
from credit.adapters.tunix.registry import compute_advantages

DGPO = {"estimator": "dgpo"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "dgop"}, "unknown estimator 'dgop'; known: .*dapo, .*dgpo"),
        ({"estimator": {"name": "dgpo", "tua": 1}}, "unknown setting 'tua'"),
        ({"estimator": {"name": "dgpo", "tau": -1}}, "not greater than 0"),
        ({"advantage_estimator": "credit/dgpo"}, "CreditGRPOConfig takes estimator='dgpo'"),
        ({"estimator": "grpo", "filter_groups": True}, "filter_groups=True has no effect with grpo"),
        (
            {"estimator": {"name": "mix", "parts": [[1, "grpo"]]}, "filter_groups": True},
            "filter_groups=True has no effect with mix",
        ),
        ({"overlong_cache": 0}, "overlong_cache is 0"),
        ({"overlong_penalty": -1.0}, "overlong_penalty is -1.0"),
        ({"num_generations": 1}, "num_generations must be greater than 1"),
    ],
)
def test_a_wrong_config_is_refused_when_it_is_made(settings, message):
    with pytest.raises(ValueError, match=message):
        CreditGRPOConfig(**settings)


@pytest.mark.parametrize(
    ("config", "cluster", "message"),
    [
        ({"estimator": "remax"}, {}, "remax needs baseline_rewards, which Tunix does not provide"),
        (
            {"estimator": {"name": "gdpo", "reward_weights": [1.0, 2.0]}},
            {},
            "gdpo has 2 reward_weights for 1 rewards",
        ),
        (
            {"estimator": {"name": "dapo", "filter_by": 1}, "filter_groups": True},
            {},
            "filter_by=1 of dapo counts the rewards from 0, and there are 1; expected 0..0, or total",
        ),
        (DGPO, {"top_p": None}, "top_p=None samples greedily"),
        ({"estimator": "grpo"}, {"temperature": 0.0}, "temperature=0.0 samples greedily"),
        ({"estimator": "grpo"}, {"top_k": 1}, "top_k=1 samples greedily"),
        (DGPO, {"reference": False}, "dgpo needs a reference model; give RLCluster reference="),
        (DGPO, {"cluster": {"offload_to_cpu": True}}, "offload_to_cpu=True"),
        ({"overlong_cache": 13}, {}, "overlong_cache=13 is more than max_tokens_to_generate=12"),
        (
            {"estimator": {"name": "dgpo", "tau": {"start": 1.0, "end": 0.1}}},
            {"steps": None},
            "dgpo has a schedule; set max_steps",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_the_learner_is_made(
    make_cluster, low_digits, config, cluster, message
):
    models = make_cluster(**cluster)
    with pytest.raises(ValueError, match=message):
        CreditGRPOLearner(models, CreditGRPOConfig(**config), low_digits)


def test_a_part_that_weighs_several_rewards_gets_one(make_cluster, low_digits):
    mix = {"name": "mix", "parts": [[0.5, "gdpo"], [0.5, "grpo"]]}
    config = CreditGRPOConfig(estimator=mix)
    with pytest.raises(ValueError, match="one of its parts weighs several .gdpo., and there are 2"):
        CreditGRPOLearner(make_cluster(), config, [low_digits, low_digits])
    CreditGRPOLearner(make_cluster(), config, low_digits)


def test_actor_and_reference_on_different_meshes_are_refused(make_cluster, low_digits, mesh_of):
    models = make_cluster(meshes={Role.REFERENCE: mesh_of(1, 1, first=1)})
    with pytest.raises(
        ValueError, match="lie on different meshes; give Role.ACTOR and Role.REFERENCE one mesh"
    ):
        CreditGRPOLearner(models, CreditGRPOConfig(**DGPO), low_digits)
    CreditGRPOLearner(models, CreditGRPOConfig(estimator="grpo"), low_digits)


def test_another_config_is_refused(make_cluster, low_digits):
    from tunix.rl.grpo.grpo_learner import GRPOConfig

    with pytest.raises(ValueError, match="expected a CreditGRPOConfig"):
        CreditGRPOLearner(make_cluster(), GRPOConfig(), low_digits)


def test_the_registry_has_every_estimator_and_says_what_one_lacks():
    register()  # once more, for what other tests defined
    known = function_registry.default_registry.list_functions("advantage_estimator")
    assert {f"credit/{name}" for name in credit.names()} <= set(known)
    rewards = np.array([0.0, 1.0, 0.5, 0.5, 1.0, 3.0])
    alone = {"dapo", "dr_grpo", "gpg", "grpo", "lite_ppo", "max_rl", "pass_at_k", "rloo"}
    for name in alone:
        assert np.abs(compute_advantages(name, rewards=rewards, num_generations=2)).max() > 0
    for name in set(credit.names()) - alone - {"mix"}:
        with pytest.raises(ValueError, match=f"credit/{name} (needs|weighs) .* use CreditGRPOLearner"):
            compute_advantages(name, rewards=rewards, num_generations=2)


@pytest.mark.parametrize("name", ["lite_ppo", "gpg"])
def test_one_group_does_not_pass_for_a_batch(name):
    function = function_registry.get_advantage_estimator(f"credit/{name}")
    with pytest.raises(ValueError, match="the whole batch, but .* .the agentic learner, those of one group"):
        function(rewards=np.array([0.0, 1.0]), num_generations=2)
    assert compute_advantages("grpo", rewards=np.array([0.0, 1.0]), num_generations=2) == pytest.approx(
        [-0.7071, 0.7071], abs=1e-4
    )


def test_the_sum_of_several_rewards_is_not_taken_for_them():
    with pytest.raises(
        ValueError,
        match="credit/gdpo weighs the rewards of several functions, but this learner passes on their sum only; "
        "use CreditGRPOLearner with CreditGRPOConfig.estimator='gdpo'., which gives it each",
    ):
        compute_advantages("gdpo", rewards=np.arange(8.0), num_generations=4)


def test_our_config_in_another_learner_is_refused():
    name = CreditGRPOConfig(estimator="dgpo").advantage_estimator
    with pytest.raises(ValueError, match="works with CreditGRPOLearner only, and CreditAgenticGRPOConfig"):
        function_registry.get_advantage_estimator(name)(rewards=np.zeros(2), num_generations=2)
    with pytest.raises(ValueError, match="credit/dgpo needs deviation and normalized_entropy"):
        compute_advantages("dgpo", rewards=np.zeros(4), num_generations=2)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("m.version = lambda name: '0.1.6' if name == 'google-tunix' else real(name)", "found 0.1.6"),
        ("from tunix.rl import common; del common.process_ids", "process_ids is missing in google-tunix"),
    ],
)
def test_another_tunix_is_refused_at_import(patch, message):
    code = f"import importlib.metadata as m; real = m.version\n{patch}\nimport credit.adapters.tunix"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert message in result.stderr


def test_each_learner_says_once_what_trains_it(make_cluster, low_digits, caplog):
    config = CreditGRPOConfig(estimator={"name": "dgpo", "tau": 0.05})
    CreditGRPOLearner(make_cluster(), config, low_digits)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "credit" and r.levelname == "INFO"]
    assert line.startswith("Tunix trains with dgpo: tau=0.05 (default 0.5), correction=1, eps=1e-06, ")
    assert line.endswith("; token statistics: deviation, normalized_entropy, from the models' logits")


def test_a_registered_estimator_says_once_that_it_trains(caplog):
    registry._report_once.cache_clear()
    for _ in range(2):
        compute_advantages("grpo", rewards=np.array([0.0, 1.0]), num_generations=2)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "credit"]
    assert line == "Tunix trains with grpo: correction=1, eps=1e-06, leave_one_out=False"


def test_differing_loss_options_are_reported_and_kept(make_cluster, low_digits, caplog):
    config = CreditGRPOConfig(estimator="dgpo", loss_agg_mode="token-mean", epsilon_c=3.0)
    with caplog.at_level(logging.WARNING, logger="credit"):
        learner = CreditGRPOLearner(make_cluster(), config, low_digits)
    (record,) = [r for r in caplog.records if r.name == "credit"]
    for part in (
        "loss_agg_mode=token-mean (sequence-mean-token-mean)",
        "epsilon_c=3.0 (None)",
        "beta=0.04 (0.0)",
    ):
        assert part in record.getMessage()
    assert (learner.algo_config.loss_agg_mode, learner.algo_config.beta) == ("token-mean", 0.04)


def test_what_tunix_has_no_option_for_is_named(make_cluster, low_digits, caplog):
    loss = {"objective": "sapo", "temperature_positive": 2.0, "rollout_cap": 2.0}
    config = CreditGRPOConfig(estimator={"name": "grpo", "loss": loss}, beta=0.0)
    with caplog.at_level(logging.WARNING, logger="credit"):
        CreditGRPOLearner(make_cluster(), config, low_digits)
    (record,) = [r for r in caplog.records if r.name == "credit"]
    assert "no option is known for objective='sapo', rollout_cap=2.0 of grpo" in record.getMessage()
    assert "epsilon" not in record.getMessage()


def test_the_preset_differs_in_nothing(make_cluster, low_digits, caplog):
    CreditGRPOLearner(make_cluster(), CreditGRPOConfig.dapo(overlong_cache=4), low_digits)
    assert not [r for r in caplog.records if r.name == "credit" and r.levelname == "WARNING"]
