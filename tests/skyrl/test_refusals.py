"""Options of SkyRL's that cannot work with an estimator, each an error before a model is loaded."""

from typing import Literal

import pytest

import credit
from credit.adapters.skyrl import config, entrypoint, python


class ReadsSampler(credit.GRPO):
    """Reads the log-probs of the engine that sampled."""

    name: Literal["reads_sampler"] = "reads_sampler"

    @property
    def needs(self):
        return ("rollout_log_probs",)


REFUSED = [
    ("credit_dgpo", {"credit__tau": -1}, "tau"),
    ("credit_dgpo", {"credit__nothing": 1}, "nothing"),
    ("credit_nothing", {}, "unknown estimator 'credit_nothing'; known: credit_dapo"),
    (
        "dgpo",
        {},
        "SkyRL has no estimator 'dgpo'; credit's is trainer.algorithm.advantage_estimator=credit_dgpo",
    ),
    ("grpo", {"credit__tau": 1}, "credit is set, but .*advantage_estimator=grpo is not one of credit's"),
    ("credit_dgpo", {"credit__name": "grpo"}, "trainer.algorithm.credit.name is not used"),
    ("credit_dgpo", {"credit": 3}, "trainer.algorithm.credit is 3; expected settings such as"),
    (
        "credit_dgpo",
        {"credit__statistics_memory_mb": 0},
        "statistics_memory_mb=0; expected a positive number",
    ),
    ("credit_grpo", {"credit__statistics_memory_mb": 9}, "=9 has no effect, since no logits are compared"),
    ("credit_remax", {}, "credit_remax needs baseline_rewards, which SkyRL does not provide"),
    ("credit_gdpo", {}, "credit_gdpo weighs several rewards, but SkyRL passes on the sum of the rewards"),
    ("credit_gae", {}, "credit_gae needs extra.values, .*; set trainer.critic.model.path"),
    (
        "credit_dgpo",
        {"advantage_batch_normalize": "true"},
        "advantage_batch_normalize=true subtracts the mean",
    ),
    (
        "credit_grpo",
        {"advantage_batch_normalize": "true"},
        "padding included, from the advantages of credit_grpo",
    ),
    ("credit_grpo", {"grpo_norm_by_std": "false"}, "grpo_norm_by_std=false has no effect with credit_grpo"),
    ("credit_grpo", {"gamma": 0.5}, "gamma=0.5 has no effect with credit_grpo, which has no discount; leave"),
    ("credit_gae", {"lambd": 0.5}, "set trainer.algorithm.credit.lam=0.5 instead"),
    ("credit_dgpo", {"use_kl_in_reward": "true"}, "use_kl_in_reward=true subtracts a KL penalty"),
    (
        "credit_dgpo",
        {"policy_loss_type": "cross_entropy"},
        "cross_entropy ignores the advantages of credit_dgpo",
    ),
    ("credit_dgpo", {"temperature": 0}, "trainer.algorithm.temperature=0 is greedy sampling"),
]
FARTHER = [
    ({"generator.n_samples_per_prompt": 1}, "set generator.n_samples_per_prompt to 2 or more"),
    (
        {"generator.sampling_params.temperature": 0},
        "generator.sampling_params.temperature=0 is greedy sampling",
    ),
    (
        {"trainer.strategy": "megatron"},
        "deviation, .* are computed in SkyRL's FSDP workers alone; set trainer",
    ),
    ({"trainer.policy.sequence_parallel_size": 2}, "sequence_parallel_size=2 splits the sequences"),
    ({"trainer.update_ref_every_epoch": "true"}, "update_ref_every_epoch=true replaces the weights"),
    ({"trainer.fully_async.enabled": "true"}, "fully_async.enabled=true is for SkyRL's asynchronous trainer"),
    ({"trainer.fully_async.simulate_training": "true"}, "fully_async.simulate_training=true is for"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_an_option_of_the_algorithm_is_refused(check, name, options, message):
    with pytest.raises(ValueError, match=message):
        check(name, **{f"trainer__algorithm__{option}": value for option, value in options.items()})


@pytest.mark.parametrize(("options", "message"), FARTHER)
def test_an_option_elsewhere_is_refused(check, options, message):
    with pytest.raises(ValueError, match=message):
        check(**{option.replace(".", "__"): value for option, value in options.items()})


@pytest.mark.parametrize("name", ["credit_mt_grpo", "credit_reinforce_plus_plus"])
def test_steps_as_rows_want_an_advantage_for_each_trajectory(check, name):
    with pytest.raises(ValueError, match="step_wise_trajectories=true makes a row of each step"):
        check(name, generator__step_wise_trajectories="true")
    check("credit_dgpo", generator__step_wise_trajectories="true")


@pytest.mark.parametrize(
    "option", ["trainer__algorithm__dynamic_sampling__type", "generator__merge_stepwise_output"]
)
def test_arrays_that_skyrl_would_drop_are_refused(check, option):
    value = "filter" if option.endswith("type") else "true"
    with pytest.raises(ValueError, match="put samples together anew, .* needs extra.planning; leave it out"):
        check("credit_hicra", **{option: value})
    check("credit_dgpo", **{option: value})


def test_log_probs_that_are_not_recorded_are_refused(check):
    name = f"credit_{ReadsSampler().name}"
    check(name)
    with pytest.raises(
        ValueError, match=r"needs rollout_log_probs, .* set generator.sampling_params.logprobs=1"
    ):
        check(name, generator__sampling_params__logprobs="null")


def test_parts_that_read_rewards_differently_are_refused(check):
    parts = "[[0.5, mt_grpo], [0.5, {name: reinforce_plus_plus, rewards_from: tokens}]]"
    with pytest.raises(ValueError, match="the parts of the mix read different rewards"):
        check("credit_mix", trainer__algorithm__credit__parts=parts)


def test_what_reads_rewards_alone_runs_anywhere(check):
    """Megatron, sequence parallelism and the rest concern the statistics of tokens, which nothing reads here."""
    options = {"trainer__strategy": "megatron", "trainer__update_ref_every_epoch": "true"}
    cfg, choice = check("credit_rloo", **options)
    assert choice.scored == ()
    assert isinstance(cfg, config.CreditTrainConfig)
    check("credit_grpo", trainer__policy__sequence_parallel_size=2)


def test_skyrls_config_is_as_strict_as_without_us(check):
    with pytest.raises(ValueError, match="Invalid fields {'nothing'} for CreditAlgorithmConfig"):
        check(trainer__algorithm__nothing=1)
    cfg, choice = check("grpo")
    assert choice is None
    assert cfg.trainer.algorithm.credit == {}


def test_the_settings_reach_the_estimator(check):
    options = {"tau": 0.05, "statistics_memory_mb": 64, "preset": "skyrl"}
    _, choice = check(**{f"trainer__algorithm__credit__{name}": value for name, value in options.items()})
    assert choice.estimator == credit.get("dgpo", preset="skyrl", tau=0.05)
    assert choice.statistics_memory_mb == 64
    assert set(choice.scored) == {
        *("deviation", "normalized_entropy", "log_probs", "extra.entropy", "extra.kl")
    }


def test_without_an_estimator_the_command_is_skyrls_own(arguments, monkeypatch, caplog):
    seen = []
    given = [*arguments(), "trainer.override_entrypoint=credit.adapters.skyrl"]
    monkeypatch.setattr(entrypoint.sys, "argv", ["skyrl", *given])
    monkeypatch.setattr(entrypoint.main_base, "main", lambda: seen.append(list(entrypoint.sys.argv)))
    entrypoint.main()
    assert seen == [["skyrl", *given[:-1]]]
    (record,) = caplog.records
    assert "advantage_estimator=grpo is SkyRL's own, so that nothing of credit is used" in record.getMessage()


def test_an_experiment_of_ones_own_wants_an_estimator_of_credit(arguments):
    class Mine(entrypoint.CreditExperiment):
        """With another generator, say."""

    with pytest.raises(
        ValueError, match="Mine runs with an estimator of credit, and .*=grpo is SkyRL's; name"
    ):
        entrypoint.main(Mine, arguments())


def test_skyrls_older_name_of_its_strategy_is_taken(check):
    cfg, choice = check(trainer__strategy="fsdp2")
    assert choice.statistics
    assert cfg.trainer.strategy == "fsdp2"  # until SkyRL's own check


def test_a_python_that_cannot_import_skyrl_is_told_so(monkeypatch):
    def fail(name):
        raise python.PydanticUserError("use typing_extensions.TypedDict", code="typed-dict-version")

    python.refuse_unimportable()
    monkeypatch.setattr(python, "import_module", fail)
    with pytest.raises(ImportError, match="cannot be imported on Python .*; use Python 3.12"):
        python.refuse_unimportable()


def test_the_eval_and_sampling_temperature_may_be_left_to_skyrl(check):
    check("credit_grpo", generator__sampling_params__temperature="null")
