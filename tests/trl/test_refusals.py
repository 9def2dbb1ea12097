"""What the adapter refuses, and that it does so before it loads a model."""

import logging
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Literal

import pytest
import trl.trainer.utils
from trl import GRPOTrainer

import credit
from credit.adapters.hooks import check_framework
from credit.adapters.trl import hooks, statistics

NOWHERE = "/nowhere/no-model"
SUPPORTS = f"credit supports trl {hooks.FRAMEWORK.supported}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "remax"}, "remax needs baseline_rewards, which TRL does not provide"),
        ({"estimator": "dgop"}, "unknown estimator 'dgop'; known: .*dapo, .*dgpo"),
        ({"estimator": "dgpo", "kwargs": {"tua": 1}}, "unknown setting 'tua'"),
        ({"estimator": "dgpo", "kwargs": '{"tau": -1}'}, "greater than 0"),
        ({"kwargs": {"tau": 1}}, "advantage_estimator is not"),
        (
            {"estimator": "mix", "kwargs": {"parts": [[1.0, "gdpo"]]}},
            r"one of its parts weighs .* \(gdpo\); use that estimator alone",
        ),
        ({"estimator": "dgpo", "kwargs": {"name": "grpo"}}, "the name goes to advantage_estimator"),
        ({"estimator": "grpo", "scale_rewards": "none"}, "scale_rewards='none' contradicts"),
        ({"estimator": "grpo", "multi_objective_aggregation": "normalize_then_sum"}, "weighted sum"),
        (
            {"estimator": "dgpo", "dynamic_sampling_reward": "digits"},
            "dynamic_sampling_reward='digits' has no effect, since dgpo keeps every group; set dynamic_sampl",
        ),
        (
            {"estimator": "dapo", "dynamic_sampling_reward": "digits", "dynamic_sampling": "none"},
            "has no effect with dynamic_sampling='none'",
        ),
        (
            {"estimator": "dapo", "dynamic_sampling_reward": "digits", "kwargs": {"filter_by": 0}},
            "filter_by of dapo=0 both say which reward decides; leave one out",
        ),
        ({"dynamic_sampling_reward": "digits"}, "dynamic_sampling_reward is set, but advantage_estimator"),
        ({"estimator": "dgpo", "statistics_memory_mb": 0}, "statistics_memory_mb is 0; expected a positive"),
        ({"estimator": "dgpo", "sync_ref_model": True, "extra": {"ref_model": object()}}, "sync_ref_model"),
    ],
)
def test_wrong_settings_are_refused_before_loading(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(model=NOWHERE, **settings)


@pytest.mark.parametrize(
    ("name", "loss"), [("grpo", "grpo"), ("grpo_s", "luspo"), ("dgpo", "cispo"), ("dgpo", "vespo")]
)
def test_a_ratio_per_sequence_stays_where_no_advantage_is_lost(make_trainer, name, loss):
    make_trainer(name, loss_type=loss, importance_sampling_level="sequence")


def test_a_model_that_is_not_there_is_still_trls_error(make_trainer):
    with pytest.raises(OSError, match="no-model"):
        make_trainer("dgpo", model=NOWHERE)


def test_a_need_that_trl_cannot_fill_is_refused(make_trainer):
    class NeedsGreedy(credit.GRPO):
        name: Literal["needs_greedy"] = "needs_greedy"

        @property
        def needs(self):
            return ("baseline_rewards",)

    with pytest.raises(ValueError, match="needs_greedy needs baseline_rewards, which TRL does not provide"):
        make_trainer("needs_greedy", model=NOWHERE)


def test_log_probs_that_nobody_records_are_refused(make_trainer):
    class NeedsSampled(credit.GRPO):
        name: Literal["needs_sampled"] = "needs_sampled"

        @property
        def needs(self):
            return ("rollout_log_probs",)

    with pytest.raises(ValueError, match="does not record with these settings; set use_vllm=True"):
        make_trainer("needs_sampled", model=NOWHERE)


def test_an_older_trl_is_refused_at_import():
    code = (
        "import importlib.metadata as m; real = m.version\n"
        "m.version = lambda name: '1.8.0' if name == 'trl' else real(name)\n"
        "import credit.adapters.trl"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"{SUPPORTS} and found 1.8.0" in result.stderr


def test_differing_loss_options_are_reported_and_kept(make_trainer, caplog):
    with caplog.at_level(logging.WARNING, logger="credit"):
        trainer = make_trainer("dgpo", loss_type="dapo", epsilon_high=0.3, delta=4.0)
    (record,) = [r for r in caplog.records if r.name == "credit"]
    for part in ("loss_type=dapo (grpo)", "epsilon_high=0.3 (0.2)", "delta=4.0 (None)"):
        assert part in record.getMessage()
    assert (trainer.loss_type, trainer.epsilon_high, trainer.args.delta) == ("dapo", 0.3, 4.0)


def test_equal_loss_options_are_not_reported(make_trainer, caplog):
    make_trainer("dapo", loss_type="dapo", epsilon_high=0.28)
    assert not [r for r in caplog.records if r.name == "credit" and r.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("loss", "settings", "reported"),
    [
        (
            {"objective": "sapo", "temperature_negative": 2.0},
            {"loss_type": "grpo"},
            ["loss_type=grpo (sapo)", "sapo_temperature_neg=1.05 (2.0)"],
        ),
        (
            {"objective": "sapo", "aggregation": "token_mean"},
            {"loss_type": "sapo"},
            ["sapo=sequence_mean (token"],
        ),
        (
            {"objective": "cispo", "clip_high": 4.0, "aggregation": "token_mean"},
            {"loss_type": "cispo", "epsilon_high": 4.0},
            ["epsilon_high=4.0 (5.0)", "lower clip of loss_type cispo=1.0 (0.2)"],
        ),
        (
            {"objective": "vespo", "kernel_positive": [1, 3], "aggregation": "token_mean"},
            {"loss_type": "vespo"},
            ["vespo_k_pos and lambda_pos=(2.0, 3.0) ((1.0, 3.0))"],
        ),
        (
            {"objective": "gmpo", "clip_low": 0.4, "clip_high": 0.4},
            {},
            ["no option is known for objective='gmpo'"],
        ),
        (
            {"rollout_cap": 5.0, "rollout_rule": "mask"},
            {},
            ["vllm_importance_sampling_clip_max=3.0 (5.0)", "importance_sampling_mode=None (token_mask)"],
        ),
        ({"kl_coefficient": 0.1, "kl": "k1"}, {"beta": 0.1}, ["no option is known for kl='k1' of grpo"]),
    ],
    ids=str,
)
def test_every_setting_of_the_loss_is_compared_or_named(make_trainer, caplog, loss, settings, reported):
    make_trainer("grpo", {"loss": loss}, **{"loss_type": "grpo"} | settings)
    (record,) = [r for r in caplog.records if r.name == "credit" and r.levelname == "WARNING"]
    for part in reported:
        assert part in record.getMessage()


@pytest.mark.parametrize(
    ("owner", "name", "found"),
    [
        (GRPOTrainer, "_compute_loss", r"_compute_loss takes \(self\) in trl "),
        (trl.trainer.utils, "use_adapter", r"utils.use_adapter takes \(self\) in trl "),
    ],
)
def test_a_trl_with_other_functions_is_refused(monkeypatch, owner, name, found):
    check_framework(hooks.FRAMEWORK, hooks.FUNCTIONS)
    monkeypatch.setattr(owner, name, lambda self: None)
    with pytest.raises(ImportError, match=f"{found}.*; {re.escape(SUPPORTS)}"):
        check_framework(hooks.FRAMEWORK, hooks.FUNCTIONS)


@pytest.mark.parametrize("owner", ["trl.trainer.utils:use_adapter", "trl.models.utils"])
def test_a_trl_without_a_function_is_refused(monkeypatch, owner):
    monkeypatch.setitem(hooks.FUNCTIONS, f"{owner}_of_old", {"any": "self"})
    with pytest.raises(ImportError, match=f"_of_old.*; {re.escape(SUPPORTS)}"):
        check_framework(hooks.FRAMEWORK, hooks.FUNCTIONS)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_an_old_luspo_is_refused_with_advantages_of_tokens(make_trainer, monkeypatch, level):
    settings = {"model": NOWHERE, "loss_type": "luspo", "importance_sampling_level": level}
    monkeypatch.setattr(trl, "__version__", "1.9.0")
    with pytest.raises(ValueError, match="luspo' of TRL 1.9.0 divides a loss of tokens .*; update TRL"):
        make_trainer("dgpo", **settings)
    with pytest.raises(Exception, match="nowhere"):  # the model, which is looked for
        make_trainer("grpo", **settings)


def test_fsdp_1_is_refused():
    plugin = SimpleNamespace(fsdp_version=1)
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    trainer = SimpleNamespace(is_fsdp_enabled=True, accelerator=accelerator, credit_estimator=credit.DGPO())
    with pytest.raises(ValueError, match="dgpo needs token statistics.* fsdp_version: 2"):
        statistics.refuse_fsdp1(trainer)
    plugin.fsdp_version = 2
    statistics.refuse_fsdp1(trainer)
