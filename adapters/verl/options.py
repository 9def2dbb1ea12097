"""verl's options beside an estimator: what cannot work with it, and what differs from its paper."""

from typing import Any

from omegaconf import OmegaConf
from verl.trainer.ppo import core_algos

import credit
from credit.adapters import loss_report, rules
from credit.adapters.verl import rewards, settings, sources
from credit.adapters.verl.hooks import FRAMEWORK
from credit.adapters.verl.settings import Choice
from credit.adapters.verl.sources import Mode

NO_DUAL_CLIP = 100.0  # a ratio never gets this large, so a clip_ratio_c from here on never acts
# verl's loss_mode by objective and ratio, and its names of estimators of the KL divergence.
LOSS_MODES = {
    ("clip", "token"): "vanilla",
    ("clip", "sequence"): "gspo",
    ("gmpo", "token"): "geo_mean",
    **{(name, "token"): name for name in ("cispo", "sapo", "dppo_tv", "dppo_kl", "clip_cov", "kl_cov")},
}
KL_TYPES = {"kl": "k1", "mse": "k2", "low_var_kl": "k3"}


def refuse(choice: Choice, config: Any, mode: Mode) -> None:
    """Raises ValueError for options that cannot work with this estimator, before anything is loaded."""
    estimator, models = choice.estimator, config.actor_rollout_ref
    name = FRAMEWORK.name_of(estimator)
    rewards.refuse_greedy_baseline(estimator)
    rewards.refuse_parallel_calls(choice.token_rewards, models.rollout.multi_turn)
    rules.refuse_missing_fields(FRAMEWORK, estimator)
    own_filter = "set algorithm.filter_groups.metric, such as acc"
    rules.refuse_filter_by(FRAMEWORK, estimator, "which filters groups by itself", own_filter)
    rules.refuse_single_responses(FRAMEWORK, estimator, models.rollout.n)
    settings.refuse_without_effect(estimator, config.algorithm)
    _refuse_loss_mode(estimator, models.actor.policy_loss.get("loss_mode", "vanilla"))
    _refuse_temperature(name, models.rollout.temperature)
    rules.refuse_unrecorded_log_probs(FRAMEWORK, estimator, models.rollout.calculate_log_probs)
    if "extra.values" in estimator.required_fields and not OmegaConf.select(config, "critic.enable"):
        raise ValueError(
            f"{name} needs extra.values, which verl's critic gives, and there is none; set critic.enable=True"
        )
    if mode.computes_statistics and sources.runs_reference(choice, config):
        _refuse_unbatched(name, models.ref)


def _refuse_loss_mode(estimator: credit.Estimator, mode: str) -> None:
    option = "actor_rollout_ref.actor.policy_loss.loss_mode"
    if mode not in core_algos.POLICY_LOSS_REGISTRY:
        known = ", ".join(sorted(core_algos.POLICY_LOSS_REGISTRY))
        raise ValueError(
            f"{option} is {mode!r}, which verl does not know; it knows {known}, and a loss of your "
            "own if actor_rollout_ref.model.external_lib imports it"
        )
    if mode == "geo_mean":
        rules.refuse_one_ratio(FRAMEWORK, estimator, f"{option}=geo_mean", f"set {option}=vanilla")


def _refuse_temperature(name: str, temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(
            f"actor_rollout_ref.rollout.temperature is {temperature:g}, with which {name} has nothing to "
            "learn from, since all responses to a prompt are the same; set it to a number above 0 (that of "
            "validation is actor_rollout_ref.rollout.val_kwargs.temperature)"
        )


def _refuse_unbatched(name: str, ref: Any) -> None:
    """Refuses a missing batch size of the reference, which verl checks only if there is a KL term."""
    sizes = ("log_prob_micro_batch_size", "log_prob_micro_batch_size_per_gpu")
    if not ref.log_prob_use_dynamic_bsz and all(ref.get(size) is None for size in sizes):
        raise ValueError(
            f"{name} runs the reference model, whose batch size is not set; set actor_rollout_ref.ref."
            "log_prob_micro_batch_size_per_gpu, or actor_rollout_ref.actor.use_dynamic_bsz=True"
        )


def report_differences(choice: Choice, config: Any) -> None:
    """Logs one line if verl's loss options, which stay as they are, differ from the paper's."""
    paper, actor = choice.estimator.loss, config.actor_rollout_ref.actor
    cap = None if actor.clip_ratio_c >= NO_DUAL_CLIP else actor.clip_ratio_c
    mode = actor.policy_loss.get("loss_mode", "vanilla")
    wanted = LOSS_MODES.get((paper.objective, paper.ratio))
    options: dict[str, loss_report.Option] = {
        "clip_low": ("clip_ratio_low", actor.clip_ratio_low, paper.clip_low),
        "clip_high": ("clip_ratio_high", actor.clip_ratio_high, paper.clip_high),
        "dual_clip": ("clip_ratio_c", cap, paper.dual_clip),
        "ratio_cap": ("clip_ratio_c", cap, paper.ratio_cap),
        "temperature_positive": ("tau_pos", actor.tau_pos, paper.temperature_positive),
        "temperature_negative": ("tau_neg", actor.tau_neg, paper.temperature_negative),
        **_covariance_options(paper, actor.policy_loss),
        "kl_coefficient": ("use_kl_loss", bool(actor.use_kl_loss), False),
        "kl": ("kl_loss_type", KL_TYPES.get(actor.kl_loss_type, actor.kl_loss_type), paper.kl),
    }
    if wanted is not None:
        options |= dict.fromkeys(("objective", "ratio"), ("policy_loss.loss_mode", mode, wanted))
    if paper.kl_coefficient:
        coefficient = actor.kl_loss_coef if actor.use_kl_loss else 0.0
        options["kl_coefficient"] = ("kl_loss_coef", coefficient, paper.kl_coefficient)
    if FRAMEWORK.aggregations.get(actor.loss_agg_mode) == paper.aggregation == "fixed_horizon":
        # Left at None, verl divides by the width of each micro-batch, which follows its padding.
        horizon = paper.horizon or config.data.max_response_length
        options["horizon"] = ("loss_scale_factor", actor.loss_scale_factor, horizon)
    if paper.rollout_cap is not None:
        options |= _rollout_options(paper, config)
    further = [("use_kl_in_reward", bool(config.algorithm.use_kl_in_reward), False)]
    aggregation = ("loss_agg_mode", actor.loss_agg_mode)
    loss_report.report_loss_differences(FRAMEWORK, choice.estimator, options, aggregation, further)


def _covariance_options(paper: credit.PolicyLoss, policy_loss: Any) -> dict[str, loss_report.Option]:
    fraction = "clip_cov_ratio" if paper.objective == "clip_cov" else "kl_cov_ratio"
    names = {
        "covariance_fraction": fraction,
        "covariance_low": "clip_cov_lb",
        "covariance_high": "clip_cov_ub",
        "covariance_penalty": "ppo_kl_coef",
    }
    return {
        setting: (f"policy_loss.{name}", policy_loss.get(name), getattr(paper, setting))
        for setting, name in names.items()
    }


def _rollout_options(paper: credit.PolicyLoss, config: Any) -> dict[str, loss_report.Option]:
    """One threshold truncates, "lower_upper" masks; of a floor without a mask verl knows nothing."""
    prefix = "algorithm.rollout_correction"
    level = OmegaConf.select(config, f"{prefix}.rollout_is", default=None)
    threshold = str(OmegaConf.select(config, f"{prefix}.rollout_is_threshold", default=None))
    options: dict[str, loss_report.Option] = {
        "rollout_level": ("rollout_correction.rollout_is", level, paper.rollout_level)
    }
    masks, floor = paper.rollout_rule == "mask", paper.rollout_floor
    if masks == (floor is not None):
        wanted = f"{floor}_{paper.rollout_cap}" if masks else f"{paper.rollout_cap}"
        shown = ("rollout_correction.rollout_is_threshold", threshold, wanted)
        options |= dict.fromkeys(("rollout_cap", "rollout_floor", "rollout_rule"), shown)
    return options
