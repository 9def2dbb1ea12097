"""What the adapter refuses, with reason and way out, before verl loads anything."""

import logging
import os
import subprocess
import sys
from typing import Literal

import pytest
import train_on_cpu
from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls

import credit
from credit.adapters.hooks import check_functions
from credit.adapters.verl import hooks

DGPO = ["algorithm.adv_estimator=credit_dgpo"]
NO_LOG_PROBS = "actor_rollout_ref.rollout.calculate_log_probs=False"
SYNC = [*DGPO, "trainer.v1.trainer_mode=credit_sync", "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True"]
VEOMNI = [*SYNC, "model_engine=veomni"]
BINARY = [*SYNC, "+algorithm.credit.divergence=binary"]
SINGLE = "actor_rollout_ref.rollout.n=1"
BYPASS = "algorithm.rollout_correction.bypass_mode=True"
TOP_ENTROPY = "algorithm.adv_estimator=credit_top_entropy"


class NeedsBaselines(credit.GRPO):
    """Needs what verl does not have."""

    name: Literal["needs_baselines"] = "needs_baselines"

    @property
    def needs(self):
        return ("baseline_rewards",)


class NeedsValues(credit.GRPO):
    """Needs the values of a critic."""

    name: Literal["needs_values"] = "needs_values"

    @property
    def needs(self):
        return ("extra.values",)


class NeedsKL(credit.DGPO):
    """Needs the exact KL."""

    name: Literal["needs_kl"] = "needs_kl"

    @property
    def needs(self):
        return (*super().needs, "extra.kl")


class NeedsRollouts(credit.GRPO):
    """Needs the log-probs of the engine that sampled."""

    name: Literal["needs_rollouts"] = "needs_rollouts"

    @property
    def needs(self):
        return ("rollout_log_probs",)


@pytest.fixture
def build(configured):
    """Builds the trainer that the configuration names, as verl's task runner does."""

    def make(overrides, **file):
        config = configured(*overrides, **file)
        return get_trainer_cls(config.trainer.v1.trainer_mode)(config=config)

    return make


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm.adv_estimator=credit_dgop"], "'credit_dgop'; known: .*credit_dapo, .*credit_dgpo"),
        (["algorithm.adv_estimator=dgpo"], "credit's is algorithm.adv_estimator=credit_dgpo"),
        (["algorithm.adv_estimator=grpo", "+algorithm.credit.eps=1"], "not one of credit's; set one of"),
        (["algorithm.adv_estimator=credit_grpo", "+algorithm.credit.tau=1"], "unknown setting 'tau'"),
        (["algorithm.adv_estimator=credit_grpo", "+algorithm.credit.preset=vrel"], "unknown preset 'vrel'"),
        (["algorithm.adv_estimator=credit_grpo", "+algorithm.credit=3"], "expected settings such as"),
        (["algorithm.adv_estimator=credit_grpo", "+algorithm.credit.name=dgpo"], "algorithm.adv_estimator"),
        ([*SYNC, "+algorithm.credit.tau=-1"], "greater than 0"),
        ([*SYNC, "+algorithm.credit.divergence=top_k"], "expected exact or binary"),
        (["algorithm.adv_estimator=credit_grpo", "+algorithm.credit.divergence=binary"], "has no effect"),
        (
            ["algorithm.adv_estimator=credit_needs_baselines"],
            "needs baseline_rewards, .* which verl samples for its own adv_estimator=remax alone, .* credit_rloo",
        ),
        (
            ["algorithm.adv_estimator=credit_needs_values"],
            "needs extra.values, which verl's critic gives, and there is none; set critic.enable=True",
        ),
        (
            ["algorithm.adv_estimator=credit_grpo", "+algorithm.credit.token_rewards=turn_scores"],
            "token_rewards=turn_scores has no effect with credit_grpo; leave it out",
        ),
        (
            ["algorithm.adv_estimator=credit_mt_grpo", "+algorithm.credit.token_rewards=scores"],
            "token_rewards is 'scores'; expected token_level_rewards or turn_scores",
        ),
        (
            ["algorithm.adv_estimator=credit_needs_rollouts", NO_LOG_PROBS],
            "set actor_rollout_ref.rollout.calculate_log_probs=True",
        ),
        (
            ["algorithm.adv_estimator=credit_grpo", "algorithm.norm_adv_by_std_in_grpo=False"],
            "says itself whether rewards are scaled; leave it out .credit_dr_grpo",
        ),
        (
            ["algorithm.adv_estimator=credit_grpo", "algorithm.gamma=0.9"],
            "gamma=0.9 has no effect .* leave it out",
        ),
        (
            ["algorithm.adv_estimator=credit_reinforce_plus_plus", "algorithm.gamma=0.9"],
            "set .algorithm.credit.gamma=0.9 instead",
        ),
        (
            [
                "algorithm.adv_estimator=credit_mix",
                "+algorithm.credit.parts=[[1,reinforce_plus_plus]]",
                "algorithm.gamma=0.9",
            ],
            "with credit_mix, which has a discount of its own; set a part's gamma=0.9 instead",
        ),
        (
            ["algorithm.adv_estimator=credit_gdpo"],
            "weighs several rewards, and none are named; .* .algorithm.gdpo_reward_keys=",
        ),
        (
            ["algorithm.adv_estimator=credit_dapo", "+algorithm.credit.filter_by=0"],
            "filter_by=0 of credit_dapo has no effect in verl, .*; set algorithm.filter_groups.metric",
        ),
        (
            [*SYNC, "+algorithm.credit.base={name:gdpo}"],
            "weighs several rewards, and none are named",
        ),
        (["algorithm.adv_estimator=credit_grpo", SINGLE], "set actor_rollout_ref.rollout.n to 2 or more"),
        (
            ["algorithm.adv_estimator=credit_grpo", "actor_rollout_ref.rollout.temperature=0"],
            "temperature is 0, with which credit_grpo has nothing to learn from",
        ),
        (
            ["algorithm.adv_estimator=credit_grpo", "actor_rollout_ref.actor.policy_loss.loss_mode=vanila"],
            "loss_mode is 'vanila', which verl does not know; it knows .*vanilla",
        ),
        (
            [*VEOMNI, "+algorithm.credit.statistics_memory_mb=64"],
            "memory_mb=64 has no effect with credit_dgpo, which compares whole logits with strategy=veomni",
        ),
        (
            [*SYNC, "algorithm.adv_estimator=credit_otb", BYPASS],
            "statistics for credit_otb are computed; set algorithm.rollout_correction.bypass_mode=False$",
        ),
        ([TOP_ENTROPY, BYPASS], "computes the entropy that credit_top_entropy needs; set .*=False$"),
        (
            [*SYNC, "actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean"],
            "cancels the token weights of credit_dgpo; set .*loss_mode=vanilla",
        ),
        (DGPO, "add trainer.v1.trainer_mode=credit_sync"),
        (
            [*DGPO, "trainer.v1.trainer_mode=colocate_async"],
            "add trainer.v1.trainer_mode=credit_colocate_async",
        ),
        (
            ["algorithm.adv_estimator=grpo", "trainer.v1.trainer_mode=credit_sync"],
            "needs an estimator of credit",
        ),
        ([*SYNC[:2]], "whose batch size is not set; set actor_rollout_ref.ref.log_prob_micro"),
        (
            [*VEOMNI, "actor_rollout_ref.model.use_fused_kernels=True"],
            "model.use_fused_kernels=False, or use",
        ),
        (
            [*VEOMNI, "actor_rollout_ref.ref.veomni.pad_to_length=True"],
            "set actor_rollout_ref.ref.veomni.pad_to_length=False, or use",
        ),
        ([*SYNC, BYPASS], "bypass_mode=False, or use .algorithm.credit.divergence=binary"),
        (
            [*SYNC, "actor_rollout_ref.ref.ulysses_sequence_parallel_size=2"],
            "ref.ulysses_sequence_parallel_size is 2; set the latter to 1",
        ),
        ([*SYNC, "actor_rollout_ref.ref.strategy=fsdp2"], "ref.strategy is fsdp2; set the latter to fsdp"),
        (
            [*SYNC, "actor_rollout_ref.ref.pad_to_length=True"],
            "ref.fsdp_config.pad_to_length is True; set the latter to False",
        ),
        ([*BINARY, BYPASS], "bypass_mode=False, or .algorithm.credit.kappa=0"),
        (
            [*BINARY, "algorithm.adv_estimator=credit_needs_kl"],
            "needs extra.kl, which log-probs of sampled tokens do not give; leave .*divergence=binary out",
        ),
    ],
)
def test_it_is_refused_when_the_trainer_is_built(build, overrides, message):
    with pytest.raises(ValueError, match=message):
        build(overrides)


MEGATRON = [*SYNC, "model_engine=megatron"]
OF_ACTOR = "actor_rollout_ref.actor.megatron"


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (f"{OF_ACTOR}.virtual_pipeline_model_parallel_size=2", "has not been tried"),
        (f"{OF_ACTOR}.router_replay.mode=R2", "the reference would replay the policy's"),
        (f"{OF_ACTOR}.dynamic_context_parallel=True", "turns off verl's access to logits"),
        (f"{OF_ACTOR}.pad_to_length=True", "turns off verl's access to logits"),
        ("actor_rollout_ref.ref.megatron.router_replay.mode=R3", "the reference would replay the policy's"),
        ("actor_rollout_ref.model.mtp.enable=True", "adds layers to the policy"),
        ("actor_rollout_ref.model.use_fused_kernels=True", "does not compute the logits"),
        ("actor_rollout_ref.ref.megatron.tensor_model_parallel_size=2", "ref.megatron.tensor_model_.* is 2"),
        (
            "actor_rollout_ref.ref.megatron.dtype=float16",
            "ref.megatron.dtype is float16; set the latter to bfloat16",
        ),
    ],
)
def test_megatron_is_refused_by_the_option_that_stands_against_it(build, option, reason):
    with pytest.raises(ValueError, match=reason):
        build([*MEGATRON, option])
    assert build([*MEGATRON, option, *BINARY[-1:]]).credit_choice.source == "passes"


@pytest.mark.parametrize("engine", ["torchtitan", "automodel"])
def test_engines_that_show_no_logits_are_refused(build, engine):
    overrides = [*SYNC, f"actor_rollout_ref.actor.strategy={engine}"]
    with pytest.raises(ValueError, match=f"strategy={engine} does not; set .*strategy=fsdp2, or use"):
        build(overrides)


SEPARATE = [
    *("data.train_batch_size=1024", "actor_rollout_ref.actor.ppo_mini_batch_size=256"),
    *("actor_rollout_ref.rollout.nnodes=1", "actor_rollout_ref.rollout.n_gpus_per_node=1"),
    "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
]


def test_verls_separate_async_names_the_trainer_that_takes_its_place(build):
    with pytest.raises(ValueError, match="add trainer.v1.trainer_mode=credit_separate_async"):
        build([*DGPO, "trainer.v1.trainer_mode=separate_async", *SEPARATE])


def test_separate_async_compares_within_its_hybrid_workers_alone(build):
    overrides = [*DGPO, *SYNC[2:], "trainer.v1.trainer_mode=credit_separate_async", *SEPARATE]
    assert build(overrides).credit_choice.source == "workers"
    apart = [*overrides, "actor_rollout_ref.hybrid_engine=False"]
    with pytest.raises(ValueError, match="hybrid_engine=False of separate_async gives each of them its own"):
        build(apart)
    assert build([*apart, "+algorithm.credit.divergence=binary"]).credit_choice.source == "passes"
    assert build([*apart, "actor_rollout_ref.model.lora_rank=8"]).credit_choice.source == "workers"


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        ([], "passes"),
        (["trainer.v1.trainer_mode=colocate_async"], "passes"),
        (["trainer.v1.trainer_mode=separate_async", *SEPARATE], "passes"),
        (["trainer.v1.trainer_mode=credit_sync"], "workers"),
        (["model_engine=megatron", "trainer.v1.trainer_mode=credit_sync"], "workers"),
        (["model_engine=veomni", "trainer.v1.trainer_mode=credit_sync"], "workers"),
        (["model_engine=torchtitan", "trainer.v1.trainer_mode=credit_sync"], "passes"),
        (["model_engine=megatron"], "passes"),
    ],
)
def test_estimators_of_entropy_alone_work_on_every_engine_and_mode(build, overrides, source):
    assert build([TOP_ENTROPY, *overrides]).credit_choice.source == source


@pytest.mark.parametrize(
    "overrides",
    [
        SYNC,
        [*DGPO, *SYNC[2:], "trainer.v1.trainer_mode=credit_colocate_async"],
        [*SYNC, "+algorithm.credit.kappa=0", "+algorithm.credit.preset=verl"],
        [*BINARY, "actor_rollout_ref.model.use_fused_kernels=True"],
        VEOMNI,
        [*SYNC, "actor_rollout_ref.model.use_fused_kernels=True"],
        [*SYNC, "actor_rollout_ref.actor.pad_to_length=True", "actor_rollout_ref.ref.pad_to_length=True"],
        [*SYNC, "+algorithm.credit.statistics_memory_mb=64"],
        [*BINARY, BYPASS, "+algorithm.credit.kappa=0"],
        [*SYNC[:2], "actor_rollout_ref.model.lora_rank=8"],
        ["algorithm.adv_estimator=credit_dapo"],
        ["algorithm.adv_estimator=credit_grpo", "actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean"],
        ["algorithm.adv_estimator=credit_reinforce_plus_plus", SINGLE],
        ["algorithm.adv_estimator=credit_rloo", "trainer.v1.trainer_mode=colocate_async"],
        ["algorithm.adv_estimator=credit_grpo", BYPASS, "actor_rollout_ref.model.use_fused_kernels=True"],
    ],
)
def test_what_is_not_refused(build, overrides):
    trainer = build(overrides)
    assert trainer.trainer_mode in ("sync", "colocate_async")
    assert trainer.credit_choice.estimator.name == overrides[0].split("credit_")[1]


def test_without_our_estimators_a_trainer_is_verls(build):
    assert type(build(["algorithm.adv_estimator=grpo"])) is PPOTrainerSync


def test_with_one_of_them_it_is_a_subclass_of_verls(build):
    trainer = build(["algorithm.adv_estimator=credit_grpo"])
    assert isinstance(trainer, PPOTrainerSync)
    assert type(build(["algorithm.adv_estimator=credit_dapo"])) is type(trainer) is not PPOTrainerSync


def test_a_users_own_trainer_takes_them_too(configured):
    class Mine(PPOTrainerSync):
        def __init__(self, config, more):
            super().__init__(config)
            self.more = more

    config = configured("algorithm.adv_estimator=credit_grpo")
    trainer = Mine(config, more=3)
    assert isinstance(trainer, Mine)
    assert (trainer.more, trainer.credit_choice.estimator) == (3, credit.GRPO())
    with pytest.raises(ValueError, match="unknown estimator 'credit_dgop'"):
        Mine(configured("algorithm.adv_estimator=credit_dgop"), more=3)


UNTOUCHED = """
import inspect, sys
import verl
assert not any(name.startswith("verl.trainer") for name in sys.modules), "verl's trainers are loaded"
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.v1 import PPOTrainer, get_trainer_cls
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

functions = {f"{kind.__name__}.{name}": value for kind in (PPOTrainer, RayPPOTrainer, *TRAINER_REGISTRY.values())
             for name, value in vars(kind).items() if inspect.isfunction(value)}
functions |= {name: value for name, value in ADV_ESTIMATOR_REGISTRY.items()}
for name, value in sorted(functions.items()):
    if not name.lower().startswith("credit"):
        print(name, value.__module__, value.__qualname__, value.__code__.co_filename, value.__code__.co_firstlineno)
"""


def test_the_plugin_leaves_verls_trainers_and_estimators_as_they_were():
    plain = start(UNTOUCHED, VERL_USE_EXTERNAL_PLUGINS="none").splitlines()
    loaded = start(UNTOUCHED).splitlines()
    listed = [line for line in loaded if line.count(" ") == 4 and line.rsplit(" ", 1)[-1].isdigit()]
    assert any(line.startswith("PPOTrainer._compute_advantage verl.trainer.ppo.v1") for line in listed)
    assert any(line.startswith("grpo verl.trainer.ppo.core_algos") for line in listed)
    assert set(listed) <= set(plain)
    assert len(listed) > 50


def warnings_of(caplog):
    """What the logger credit warned of."""
    return [each for each in caplog.records if each.name == "credit" and each.levelno >= logging.WARNING]


def test_the_estimator_in_force_is_logged_once_with_all_its_settings(build, caplog):
    build([*SYNC, "+algorithm.credit.tau=0.05"])
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.INFO]
    assert line.startswith("verl trains with credit_dgpo: tau=0.05 (default 0.5), ")
    for part in ("kappa=1.0", "divergence='exact'", "exact, in the pass for the old log-probs"):
        assert part in line


def test_differing_loss_options_are_reported_and_kept(build, caplog):
    with caplog.at_level(logging.WARNING, logger="credit"):
        trainer = build([*SYNC, "actor_rollout_ref.actor.use_kl_loss=True"])
    (record,) = warnings_of(caplog)
    for part in ("loss_agg_mode=token-mean (seq-mean-token-mean)", "clip_ratio_c=3.0 (None)"):
        assert part in record.getMessage()
    assert "use_kl_loss=True (False)" in record.getMessage()
    assert trainer.config.actor_rollout_ref.actor.clip_ratio_c == 3.0


def test_equal_loss_options_are_not_reported(build, caplog):
    build(
        [
            *SYNC,
            "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean",
            "actor_rollout_ref.actor.clip_ratio_c=1e6",
        ]
    )
    assert not warnings_of(caplog)


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ([], "loss_scale_factor=None (512)"),
        (["actor_rollout_ref.actor.loss_scale_factor=512"], ""),
        (["+algorithm.credit.loss={aggregation:fixed_horizon,horizon:64}"], "loss_scale_factor=None (64)"),
    ],
    ids=["unset", "set", "asked for"],
)
def test_a_horizon_that_follows_the_padding_is_reported(build, caplog, options, reported):
    fixed = ["algorithm.adv_estimator=credit_dr_grpo", "data.max_response_length=512"]
    build([*fixed, "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm", *options])
    (record,) = warnings_of(caplog)
    assert reported in record.getMessage()
    assert bool(reported) == ("loss_scale_factor" in record.getMessage())


@pytest.mark.parametrize(
    ("loss", "options", "reported"),
    [
        ("{objective:sapo,temperature_negative:2}", [], ["loss_mode=vanilla (sapo)", "tau_neg=1.05 (2.0)"]),
        (
            "{objective:kl_cov,covariance_fraction:0.002}",
            ["actor_rollout_ref.actor.policy_loss.loss_mode=kl_cov"],
            ["policy_loss.kl_cov_ratio=0.0002 (0.002)", "policy_loss.ppo_kl_coef=0.1 (1.0)"],
        ),
        (
            "{objective:dppo_kl,clip_low:0.05,clip_high:0.05}",
            ["actor_rollout_ref.actor.policy_loss.loss_mode=dppo_kl"],
            ["clip_ratio_low=0.2 (0.05)", "clip_ratio_c=3.0 (None)"],
        ),
        ("{ratio:sequence,clip_low:3e-4,clip_high:4e-4}", [], ["policy_loss.loss_mode=vanilla (gspo)"]),
        (
            "{rollout_cap:5.0,rollout_floor:0.5,rollout_rule:mask}",
            [],
            ["rollout_is=None (token)", "rollout_is_threshold=2.0 (0.5_5.0)"],
        ),
        (
            "{rollout_cap:5.0,rollout_floor:0.5}",
            ["algorithm.rollout_correction.rollout_is=token"],
            ["no option is known for its rollout_cap=5.0, rollout_floor=0.5"],
        ),
        ("{kl_coefficient:0.1,kl:k1}", [], ["kl_loss_coef=0.0 (0.1)", "kl_loss_type=k3 (k1)"]),
    ],
)
def test_every_setting_of_the_loss_is_compared_or_named(build, caplog, loss, options, reported):
    grpo = ["algorithm.adv_estimator=credit_grpo", f"+algorithm.credit.loss={loss}"]
    build([*grpo, "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean", *options])
    (record,) = warnings_of(caplog)
    for part in reported:
        assert part in record.getMessage()
    silent = ["clip_ratio_low", "clip_ratio_high"] if "clip_low" not in loss else ["tau_pos", "cov_ratio"]
    for part in [*silent, "loss_agg_mode"]:
        assert part not in record.getMessage()


REFERENCE_BATCH = "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1"


@pytest.mark.parametrize("name", train_on_cpu.ESTIMATORS)
def test_the_examples_configurations_are_those_of_the_papers(build, caplog, name):
    trainer = build([REFERENCE_BATCH], example=name)
    assert trainer.credit_choice.estimator.name == name
    reported = " ".join(record.getMessage() for record in caplog.records if record.name == "credit")
    for option in ("loss_agg_mode", "loss_scale_factor", "clip_ratio_low", "clip_ratio_high", "use_kl"):
        assert option not in reported


def start(code, *paths, **environment):
    """Runs code in a fresh process; what it printed and logged."""
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *sys.path])
    environment |= {"VERL_USE_EXTERNAL_MODULES": environment.get("VERL_USE_EXTERNAL_MODULES", "")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout + result.stderr


PRETEND = """
import importlib.metadata as metadata
real = metadata.version
metadata.version = lambda name: {version!r} if name == "verl" else real(name)
"""


@pytest.mark.parametrize("version", ["0.9.0", "0.10.0"])
def test_another_verl_is_refused_with_a_warning_that_verl_would_hide(version):
    printed = start(PRETEND.format(version=version) + "import verl")
    assert f"ImportError: credit supports verl >=0.9.1,<0.10 and found {version}" in printed
    assert "credit's estimators (adv_estimator=credit_...) are not available" in printed


def test_a_changed_signature_is_refused_by_name(tmp_path):
    (tmp_path / "changed.py").write_text(
        "from verl.trainer.ppo.v1 import PPOTrainer\n"
        "PPOTrainer._compute_advantage = lambda self, batch: batch\n"
    )
    code = (
        "import verl\nfrom verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as known\n"
        "print('credit_grpo' in known)\n"
    )
    printed = start(code, tmp_path, VERL_USE_EXTERNAL_MODULES="changed")
    assert "ImportError: PPOTrainer._compute_advantage takes (self, batch) in verl 0.9" in printed
    assert "credit expects (self, batch, metrics); credit supports verl >=0.9.1,<0.10" in printed
    assert "credit's trainers (trainer_mode=credit_sync, which credit_dgpo needs) are not" in printed
    assert "True" in printed  # estimators of rewards alone are there all the same


def test_a_missing_function_is_named():
    with pytest.raises(ImportError, match="padding.no_such_function is missing in verl"):
        check_functions(hooks.FRAMEWORK, {"verl.workers.utils.padding": {"no_such_function": "self"}})


def test_the_functions_of_every_table_are_as_they_were_known():
    # In a process of its own, since Ray adds a parameter to methods of classes that become actors.
    code = "import verl\nfrom credit.adapters import hooks\nfrom credit.adapters.verl import hooks as ours\n"
    assert "fits" in start(code + "hooks.check_functions(ours.FRAMEWORK, ours.FUNCTIONS)\nprint('fits')")


def test_without_transfer_queue_the_estimators_of_rewards_work(tmp_path):
    (tmp_path / "transfer_queue.py").write_text("raise ImportError('no transfer_queue here')\n")
    code = (
        "from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as known\n"
        "print('credit_grpo' in known)\nimport verl.trainer.ppo.v1"
    )
    printed = start(code, tmp_path)
    assert "True" in printed
    assert "ImportError: no transfer_queue here" in printed  # verl's own error
