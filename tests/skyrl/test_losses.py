"""SkyRL's loss options beside those of an estimator's paper: one line of log, and nothing is changed."""

import logging

import pytest

import credit
from credit.adapters.skyrl import options

PLAIN = {"use_kl_loss": "false", "loss_reduction": "token_mean"}
LOSSES = {
    "regular": ({}, {}),
    "dual_clip": ({"dual_clip": 3.0}, {"policy_loss_type": "dual_clip"}),
    "gspo": (
        {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "aggregation": "sequence_mean"},
        {
            **{"policy_loss_type": "gspo", "eps_clip_low": 3e-4, "eps_clip_high": 4e-4},
            "loss_reduction": "sequence_mean",
        },
    ),
    "cispo": (
        {"objective": "cispo", "clip_low": 1.0, "clip_high": 4.0},
        {"policy_loss_type": "cispo", "cispo__cispo_eps_clip_low": 1.0, "cispo__cispo_eps_clip_high": 4.0},
    ),
    "sapo": (
        {"objective": "sapo", "temperature_negative": 1.1},
        {"policy_loss_type": "sapo", "sapo__tau_neg": 1.1},
    ),
    "dppo": (
        {"objective": "dppo_kl", "clip_low": 0.05, "clip_high": 0.05},
        {
            **{"policy_loss_type": "dppo", "dppo__dppo_type": "binary_kl"},
            **{"dppo__delta_low": 0.05, "dppo__delta_high": 0.05},
        },
    ),
    "clip_cov": (
        {"objective": "clip_cov", "covariance_fraction": 1e-3},
        {"policy_loss_type": "clip_cov", "clip_cov__clip_ratio": 1e-3},
    ),
    "kl_cov": (
        {"objective": "kl_cov", "covariance_fraction": 0.1, "covariance_penalty": 2.0},
        {"policy_loss_type": "kl_cov", "kl_cov__kl_cov_frac": 0.1, "kl_cov__ppo_kl_coef": 2.0},
    ),
    "horizon": (
        {"aggregation": "fixed_horizon", "horizon": 99},
        {"loss_reduction": "seq_mean_token_sum_norm", "max_seq_len": 99},
    ),
    "kl": (
        {"kl_coefficient": 0.1, "kl": "k2"},
        {"use_kl_loss": "true", "kl_loss_coef": 0.1, "kl_estimator_type": "k2"},
    ),
    "rollouts": (
        {"rollout_cap": 2.5, "rollout_level": "sequence"},
        {
            "off_policy_correction__tis_ratio_type": "sequence",
            "off_policy_correction__sequence_tis_ratio_clip_high": 2.5,
        },
    ),
}


@pytest.fixture
def report(check, caplog):
    """The line about a loss of the estimator's, with some options of SkyRL's algorithm."""

    def run(loss, changed):
        named = {f"trainer__algorithm__{name}": value for name, value in (PLAIN | changed).items()}
        cfg, _ = check("credit_grpo", **named)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "credit"):
            estimator = credit.get("grpo", loss={"aggregation": "token_mean"} | loss)
            options.report_differences(estimator, cfg)
        return caplog.text

    return run


@pytest.mark.parametrize("name", LOSSES)
def test_the_options_of_a_loss_are_those_that_say_the_same(report, name):
    loss, changed = LOSSES[name]
    assert report(loss, changed) == ""
    if name != "regular":
        assert "SkyRL's loss" in report(loss, {})
        assert "SkyRL's loss" in report({}, changed)


def test_skyrls_default_kl_term_is_named(report):
    text = report({}, {"use_kl_loss": "true", "eps_clip_high": 0.3})
    assert "credit_grpo has other values" in text
    assert "use_kl_loss=True (False)" in text
    assert "eps_clip_high=0.3 (0.2)" in text
