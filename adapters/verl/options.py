"""verl's options beside an estimator: what cannot work with it, and what differs from its paper."""

from typing import Any

from omegaconf import OmegaConf

import credit
from credit.adapters import loss_report, rules, traits
from credit.adapters.fields import ALSO
from credit.adapters.verl import rewards
from credit.adapters.verl.hooks import FRAMEWORK
from credit.adapters.verl.settings import PREFIX, Choice

MODES = {"credit_sync": "sync", "credit_colocate_async": "colocate_async"}
BINARY = (
    "or use +algorithm.credit.divergence=binary (a weaker signal, from the log-probs of sampled tokens alone)"
)
NO_DUAL_CLIP = 100.0  # a ratio never gets this large, so a clip_ratio_c from here on never acts
# verl's loss_mode by objective and ratio, and its names of estimators of the KL divergence.
LOSS_MODES = {
    ("clip", "token"): "vanilla",
    ("clip", "sequence"): "gspo",
    ("gmpo", "token"): "geo_mean",
    **{(name, "token"): name for name in ("cispo", "sapo", "dppo_tv", "dppo_kl", "clip_cov", "kl_cov")},
}
KL_TYPES = {"kl": "k1", "mse": "k2", "low_var_kl": "k3"}


def refuse(choice: Choice, config: Any, mode: str, scores_tokens: bool) -> None:
    """Raises ValueError for options that cannot work with this estimator, before anything is loaded.

    Args:
        mode: verl's trainer mode.
        scores_tokens: whether the trainer is one of credit's, which computes token statistics.
    """
    estimator, models = choice.estimator, config.actor_rollout_ref
    name = FRAMEWORK.name_of(estimator)
    rewards.refuse_greedy_baseline(estimator)
    rewards.refuse_parallel_calls(choice.token_rewards, models.rollout.multi_turn)
    rules.refuse_missing_fields(FRAMEWORK, estimator)
    own_filter = "set algorithm.filter_groups.metric, such as acc"
    rules.refuse_filter_by(FRAMEWORK, estimator, "which filters groups by itself", own_filter)
    rules.refuse_single_responses(FRAMEWORK, estimator, models.rollout.n)
    _refuse_without_effect(estimator, name, config)
    rules.refuse_unrecorded_log_probs(FRAMEWORK, estimator, models.rollout.calculate_log_probs)
    if "extra.values" in estimator.required_fields and not OmegaConf.select(config, "critic.enable"):
        raise ValueError(
            f"{name} needs extra.values, which verl's critic gives, and there is none; set critic.enable=True"
        )
    if not choice.statistics:
        return
    if not scores_tokens:
        _refuse_mode(name, config, mode)
    if choice.reference and not uses_lora(models):
        _refuse_unbatched(name, models.ref)
    if choice.divergence == "binary":
        _refuse_for_binary(choice, name, config)
    else:
        _refuse_for_exact(choice, name, config)


def _refuse_without_effect(estimator: credit.Estimator, name: str, config: Any) -> None:
    """Refuses options by which verl would change rewards and advantages itself."""
    algorithm = config.algorithm
    if not algorithm.get("norm_adv_by_std_in_grpo", True):
        raise rules.no_effect_error(
            "algorithm.norm_adv_by_std_in_grpo=False",
            name,
            "scales the rewards itself",
            f"leave it out ({PREFIX}dr_grpo does not scale)",
        )
    if algorithm.gamma != 1:
        option, parts = f"algorithm.gamma={algorithm.gamma:g}", traits.list_parts(estimator)
        own = any(hasattr(part.estimator, "gamma") for part in parts)
        place = "+algorithm.credit.gamma" if hasattr(estimator, "gamma") else "a part's gamma"
        way_out = f"set {place}={algorithm.gamma:g} instead" if own else "leave it out"
        reason = "has a discount of its own" if own else "does not discount"
        raise rules.no_effect_error(option, name, reason, way_out)
    if config.actor_rollout_ref.actor.policy_loss.get("loss_mode", "vanilla") == "geo_mean":
        option = "actor_rollout_ref.actor.policy_loss.loss_mode"
        rules.refuse_one_ratio(FRAMEWORK, estimator, f"{option}=geo_mean", f"set {option}=vanilla")


def _refuse_mode(name: str, config: Any, mode: str) -> None:
    if mode == "separate_async":
        hybrid = config.actor_rollout_ref.get("hybrid_engine", True)
        raise ValueError(
            f"{name} needs policy and reference in one process, but trainer_mode=separate_async"
            f"{'' if hybrid else ' with hybrid_engine=False'} puts them into several; use "
            "trainer.v1.trainer_mode=credit_colocate_async"
        )
    ours = next((each for each, base in MODES.items() if base == mode), "credit_sync")
    raise ValueError(
        f"{name} needs token statistics, which trainer_mode={mode} does not compute; "
        f"add trainer.v1.trainer_mode={ours}"
    )


def _refuse_for_exact(choice: Choice, name: str, config: Any) -> None:
    models = config.actor_rollout_ref
    strategy = models.actor.strategy
    if strategy not in ("fsdp", "fsdp2"):
        stages = OmegaConf.select(models, "actor.megatron.pipeline_model_parallel_size", default=1)
        why = f"pipeline_model_parallel_size={stages}" if stages > 1 else "its shards of the vocabulary"
        raise ValueError(
            f"{name} takes exact statistics from FSDP engines; strategy={strategy} ({why}) does not have the "
            f"whole logits of both models at once; set actor and ref strategy=fsdp2, {BINARY}"
        )
    if models.model.get("use_fused_kernels") or models.actor.get("use_fused_kernels"):
        raise ValueError(
            f"use_fused_kernels=True does not compute the logits that {name} compares; set "
            f"actor_rollout_ref.model.use_fused_kernels=False, {BINARY}"
        )
    for role in ("actor", "ref"):
        if OmegaConf.select(models, f"{role}.fsdp_config.pad_to_length", default=False):
            raise ValueError(
                f"{role}.pad_to_length=True turns off verl's access to logits, which {name} needs; set "
                f"actor_rollout_ref.{role}.pad_to_length=False, {BINARY}"
            )
    if OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode", default=False):
        raise ValueError(
            "rollout_correction.bypass_mode=True skips the policy's forward pass, in which the statistics "
            f"for {name} are computed; set algorithm.rollout_correction.bypass_mode=False, {BINARY}"
        )
    if choice.reference and not uses_lora(models):
        _refuse_other_layout(name, models)


def _refuse_other_layout(name: str, models: Any) -> None:
    for option in ("strategy", "ulysses_sequence_parallel_size"):
        ours, theirs = (OmegaConf.select(models, f"{role}.{option}") for role in ("actor", "ref"))
        if ours != theirs:
            raise ValueError(
                f"{name} compares policy and reference shard by shard, but actor.{option} is {ours} and "
                f"ref.{option} is {theirs}; set actor_rollout_ref.ref.{option}={ours}"
            )


def _refuse_unbatched(name: str, ref: Any) -> None:
    """Refuses a missing batch size of the reference, which verl checks only if there is a KL term."""
    sizes = ("log_prob_micro_batch_size", "log_prob_micro_batch_size_per_gpu")
    if not ref.log_prob_use_dynamic_bsz and all(ref.get(size) is None for size in sizes):
        raise ValueError(
            f"{name} runs the reference model, whose batch size is not set; set actor_rollout_ref.ref."
            "log_prob_micro_batch_size_per_gpu, or use_dynamic_bsz=True for actor, rollout and ref"
        )


def _refuse_for_binary(choice: Choice, name: str, config: Any) -> None:
    exact = [each for each in choice.statistics if each in ALSO and each != "extra.entropy"]
    if exact:
        raise ValueError(
            f"{name} needs {', '.join(exact)}, which log-probs of sampled tokens do not give; leave "
            "algorithm.credit.divergence=binary out"
        )
    bypass = OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode", default=False)
    if bypass and {"normalized_entropy", "extra.entropy"} & set(choice.statistics):
        raise ValueError(
            "rollout_correction.bypass_mode=True skips the pass in which verl computes the entropy "
            f"that {name} needs; set algorithm.rollout_correction.bypass_mode=False, or "
            "+algorithm.credit.kappa=0"
        )


def uses_lora(models: Any) -> bool:
    """Whether the actor carries a LoRA adapter, so that the reference is the actor without it."""
    rank = OmegaConf.select(models, "model.lora.rank", default=0) or models.model.get("lora_rank", 0)
    return rank > 0 or models.model.get("lora_adapter_path") is not None


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
