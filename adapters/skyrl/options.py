"""SkyRL's options beside an estimator: which cannot work with it, and which differ from its paper."""

from typing import Any

import credit
from credit.adapters import extra, loss_report, rules, traits
from credit.adapters.skyrl import rollouts, settings
from credit.adapters.skyrl.hooks import FRAMEWORK
from credit.adapters.skyrl.settings import Choice

# SkyRL's policy_loss_type by objective and ratio; dppo has a type of its own for the divergence.
LOSS_TYPES = {
    ("clip", "token"): "regular",
    ("clip", "sequence"): "gspo",
    **{(name, "token"): name for name in ("cispo", "sapo", "clip_cov", "kl_cov")},
    ("dppo_tv", "token"): "dppo",
    ("dppo_kl", "token"): "dppo",
}

STRATEGIES = ("fsdp", "fsdp2")  # the latter is SkyRL's older name of the same


def refuse(choice: Choice, cfg: Any) -> None:
    """Raises ValueError for options that cannot work with this estimator, before anything is loaded."""
    estimator, algorithm = choice.estimator, cfg.trainer.algorithm
    rules.refuse_missing_fields(FRAMEWORK, estimator)
    rules.refuse_single_responses(FRAMEWORK, estimator, cfg.generator.n_samples_per_prompt)
    rules.refuse_several_rewards(FRAMEWORK, estimator, "the sum of the rewards")
    way_out = "set trainer.algorithm.dynamic_sampling.type"
    rules.refuse_filter_by(FRAMEWORK, estimator, "which filters groups by itself", way_out)
    recorded = cfg.generator.sampling_params.logprobs is not None
    rules.refuse_unrecorded_log_probs(FRAMEWORK, estimator, recorded)
    settings.refuse_without_effect(estimator, algorithm)
    _refuse_other_advantages(estimator, cfg)
    _refuse_temperature(estimator, cfg)
    _refuse_steps(estimator, cfg)
    _refuse_lost_arrays(estimator, cfg)
    rollouts.find_reading(estimator)
    if "extra.values" in estimator.required_fields and not cfg.trainer.critic.model.path:
        raise ValueError(
            f"{FRAMEWORK.name_of(estimator)} needs extra.values, which SkyRL's critic gives, and there is "
            "none; set trainer.critic.model.path"
        )
    if choice.statistics:
        _refuse_unscored(choice, cfg.trainer)


def _refuse_other_advantages(estimator: credit.Estimator, cfg: Any) -> None:
    """Options by which SkyRL changes rewards or advantages, or trains without them."""
    algorithm, name = cfg.trainer.algorithm, FRAMEWORK.name_of(estimator)
    if algorithm.advantage_batch_normalize:
        raise ValueError(
            "trainer.algorithm.advantage_batch_normalize=true subtracts the mean of all entries, padding "
            f"included, from the advantages of {name}; leave it out, or use credit_lite_ppo or "
            "credit_reinforce_plus_plus_baseline, which scale by the batch"
        )
    if algorithm.use_kl_in_reward:
        raise ValueError(
            "trainer.algorithm.use_kl_in_reward=true subtracts a KL penalty from the rewards of tokens, and "
            f"{name} takes the rewards of the environment alone; set it to false with "
            "trainer.algorithm.use_kl_loss=true for a KL term in the loss, or use "
            "credit_reinforce_plus_plus with a kl_coefficient"
        )
    if algorithm.policy_loss_type == "cross_entropy":
        raise ValueError(
            f"trainer.algorithm.policy_loss_type=cross_entropy ignores the advantages of {name}; use regular"
        )
    asynchronous = cfg.trainer.fully_async
    if asynchronous.enabled or asynchronous.simulate_training:
        option = "enabled" if asynchronous.enabled else "simulate_training"
        raise ValueError(
            f"trainer.fully_async.{option}=true is for SkyRL's asynchronous trainer, and this program starts "
            f"the synchronous one with {name}; leave it out"
        )


def _refuse_temperature(estimator: credit.Estimator, cfg: Any) -> None:
    places = {
        "generator.sampling_params.temperature": cfg.generator.sampling_params.temperature,
        "trainer.algorithm.temperature": cfg.trainer.algorithm.temperature,
    }
    for option, value in places.items():
        if value is not None and not value > 0:
            raise ValueError(
                f"{option}={value:g} is greedy sampling, in which all responses to a prompt are the same, so "
                f"that {FRAMEWORK.name_of(estimator)} has nothing to learn from; set it to a number above 0"
            )


def _refuse_steps(estimator: credit.Estimator, cfg: Any) -> None:
    """Steps as rows, of which the last has the reward, and an estimator that is no product A_i w."""
    whole = [part.estimator.name for part in traits.list_parts(estimator) if not part.estimator.is_product]
    if cfg.generator.step_wise_trajectories and whole:
        raise ValueError(
            "generator.step_wise_trajectories=true makes a row of each step, and all steps of a trajectory "
            f"get its advantage, but {whole[0]} computes advantages as a whole; set it to false, or "
            "use an estimator that is a product of A_i and weights, such as credit_grpo or credit_dgpo"
        )


def _refuse_lost_arrays(estimator: credit.Estimator, cfg: Any) -> None:
    """Arrays of the user's own, which SkyRL drops where it puts samples of several batches together."""
    given = extra.list_given(FRAMEWORK, estimator)
    found = {
        "trainer.algorithm.dynamic_sampling.type": cfg.trainer.algorithm.dynamic_sampling.type,
        "generator.merge_stepwise_output": cfg.generator.merge_stepwise_output,
    }
    for option, value in found.items():
        if given and value:
            raise ValueError(
                f"{option}={value} makes SkyRL put samples together anew, without arrays that are not its "
                f"own, and {FRAMEWORK.name_of(estimator)} needs {', '.join(given)}; leave it out"
            )


def _refuse_unscored(choice: Choice, trainer: Any) -> None:
    """Ways of SkyRL to run models in which tokens are not scored."""
    name, needed = FRAMEWORK.name_of(choice.estimator), ", ".join(choice.statistics)
    if trainer.strategy not in STRATEGIES:
        raise ValueError(
            f"{name} needs {needed}, which are computed in SkyRL's FSDP workers alone; set "
            f"trainer.strategy=fsdp instead of {trainer.strategy}"
        )
    size = trainer.policy.sequence_parallel_size
    if size > 1:
        raise ValueError(
            f"trainer.policy.sequence_parallel_size={size} splits the sequences between workers, where "
            f"tokens are not scored yet, and {name} needs {needed}; set it to 1"
        )
    if getattr(trainer.algorithm, "enable_sample_support_replay", False):  # since SkyRL 0.4
        raise ValueError(
            "trainer.algorithm.enable_sample_support_replay=true makes log-probs of some tokens' logits "
            f"alone, and {name} needs {needed} of all; leave it out"
        )
    if choice.compares and trainer.update_ref_every_epoch:
        raise ValueError(
            "trainer.update_ref_every_epoch=true replaces the weights of SkyRL's reference, but not of the "
            f"one that {name} compares the policy with; leave it out"
        )


def report_differences(estimator: credit.Estimator, cfg: Any) -> None:
    """Logs one line if SkyRL's loss options, which stay as they are, differ from the paper's."""
    paper, algorithm = estimator.loss, cfg.trainer.algorithm
    kind = algorithm.policy_loss_type
    dual = algorithm.clip_ratio_c if kind == "dual_clip" else None
    wanted = LOSS_TYPES.get((paper.objective, paper.ratio))
    options: dict[str, loss_report.Option] = {
        "clip_low": ("eps_clip_low", algorithm.eps_clip_low, paper.clip_low),
        "clip_high": ("eps_clip_high", algorithm.eps_clip_high, paper.clip_high),
        "dual_clip": ("clip_ratio_c", dual, paper.dual_clip),
        "kl_coefficient": ("use_kl_loss", bool(algorithm.use_kl_loss), False),
        "kl": ("kl_estimator_type", algorithm.kl_estimator_type, paper.kl),
        **_list_own(paper, algorithm),
    }
    if wanted is not None:
        shown = "regular" if kind == "dual_clip" else kind
        options |= dict.fromkeys(("objective", "ratio"), ("policy_loss_type", shown, wanted))
    if paper.kl_coefficient:
        coefficient = algorithm.kl_loss_coef if algorithm.use_kl_loss else 0.0
        options["kl_coefficient"] = ("kl_loss_coef", coefficient, paper.kl_coefficient)
    if FRAMEWORK.aggregations.get(algorithm.loss_reduction) == paper.aggregation == "fixed_horizon":
        horizon = paper.horizon or cfg.generator.sampling_params.max_generate_length
        options["horizon"] = ("max_seq_len", algorithm.max_seq_len, horizon)
    correction, further = algorithm.off_policy_correction, list[loss_report.Option]()
    if paper.rollout_cap is None:
        further = [("off_policy_correction.tis_ratio_type", correction.tis_ratio_type, None)]
    elif paper.rollout_rule == "truncate" and paper.rollout_floor is None:
        level = paper.rollout_level
        name = f"{level}_tis_ratio_clip_high"
        options["rollout_level"] = ("off_policy_correction.tis_ratio_type", correction.tis_ratio_type, level)
        options["rollout_cap"] = (
            f"off_policy_correction.{name}",
            getattr(correction, name),
            paper.rollout_cap,
        )
    aggregation = ("loss_reduction", algorithm.loss_reduction)
    loss_report.report_loss_differences(FRAMEWORK, estimator, options, aggregation, further)


def _list_own(paper: credit.PolicyLoss, algorithm: Any) -> dict[str, loss_report.Option]:
    """The options of the objectives that have sections of their own, where the paper has that objective."""
    if paper.objective == "cispo":
        own = algorithm.cispo
        return {
            "clip_low": ("cispo.cispo_eps_clip_low", own.cispo_eps_clip_low, paper.clip_low),
            "clip_high": ("cispo.cispo_eps_clip_high", own.cispo_eps_clip_high, paper.clip_high),
        }
    if paper.objective == "sapo":
        own = algorithm.sapo
        return {
            "temperature_positive": ("sapo.tau_pos", own.tau_pos, paper.temperature_positive),
            "temperature_negative": ("sapo.tau_neg", own.tau_neg, paper.temperature_negative),
        }
    if paper.objective in ("dppo_tv", "dppo_kl"):
        own, wanted = algorithm.dppo, paper.objective.replace("dppo", "binary")
        return {
            "objective": ("dppo.dppo_type", own.dppo_type, wanted),
            "clip_low": ("dppo.delta_low", own.delta_low, paper.clip_low),
            "clip_high": ("dppo.delta_high", own.delta_high, paper.clip_high),
        }
    if paper.objective == "clip_cov":
        own = algorithm.clip_cov
        return {
            "covariance_fraction": ("clip_cov.clip_ratio", own.clip_ratio, paper.covariance_fraction),
            "covariance_low": ("clip_cov.clip_cov_lb", own.clip_cov_lb, paper.covariance_low),
            "covariance_high": ("clip_cov.clip_cov_ub", own.clip_cov_ub, paper.covariance_high),
        }
    if paper.objective == "kl_cov":
        own = algorithm.kl_cov
        return {
            "covariance_fraction": ("kl_cov.kl_cov_frac", own.kl_cov_frac, paper.covariance_fraction),
            "covariance_penalty": ("kl_cov.ppo_kl_coef", own.ppo_kl_coef, paper.covariance_penalty),
        }
    return {}
