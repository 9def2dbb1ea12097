"""verl's options beside an estimator: what cannot work with it, and what differs from its paper."""

import logging
from typing import Any

from omegaconf import OmegaConf

import credit
from credit.adapters import loss_report, traits
from credit.adapters.fields import PROVIDED
from credit.adapters.verl.settings import PREFIX, Choice

logger = logging.getLogger("credit")

MODES = {"credit_sync": "sync", "credit_colocate_async": "colocate_async"}
BINARY = "or take +algorithm.credit.divergence=binary (a weaker signal, from sampled log-probs)"
NO_DUAL_CLIP = 100.0  # a clip_ratio_c from here on never acts

_AGGREGATIONS = {
    "token-mean": "token_mean",
    "seq-mean-token-mean": "sequence_mean",
    "seq-mean-token-sum": "sequence_sum",
    "seq-mean-token-sum-norm": "fixed_horizon",
}


def refuse(choice: Choice, config: Any, mode: str, scores_tokens: bool) -> None:
    """A ValueError, before anything is loaded, for what cannot work with this estimator.

    `mode` is verl's trainer mode, and `scores_tokens` whether its trainer is one of credit's.
    """
    name, models = PREFIX + choice.estimator.name, config.actor_rollout_ref
    missing = [field for field in choice.estimator.needs if field not in PROVIDED]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}, which verl does not provide")
    if traits.weighs_rewards(choice.estimator):
        raise ValueError(
            f"{name} weighs several rewards, and verl hands over their sum; take verl's own gdpo, or another "
            f"estimator, such as {PREFIX}reinforce_plus_plus_baseline"
        )
    if models.rollout.n < 2 and not traits.learns_from_single_responses(choice.estimator):
        raise ValueError(
            f"{name} compares the responses to a prompt, so that with a single one every advantage is 0; set "
            "actor_rollout_ref.rollout.n to 2 or more"
        )
    _refuse_without_effect(choice.estimator, name, config)
    if "rollout_log_probs" in choice.estimator.needs and not models.rollout.calculate_log_probs:
        raise ValueError(
            f"{name} needs rollout_log_probs; set actor_rollout_ref.rollout.calculate_log_probs=True"
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
    """What verl would do to rewards and advantages by itself."""
    algorithm = config.algorithm
    if not algorithm.get("norm_adv_by_std_in_grpo", True):
        raise ValueError(
            f"algorithm.norm_adv_by_std_in_grpo=False has no effect with {name}, which scales the rewards "
            f"itself; leave it out ({PREFIX}dr_grpo does not scale)"
        )
    if algorithm.gamma != 1:
        way = (
            f"set +algorithm.credit.gamma={algorithm.gamma:g} instead"
            if hasattr(estimator, "gamma")
            else "leave it out"
        )
        raise ValueError(f"algorithm.gamma={algorithm.gamma:g} has no effect with {name}; {way}")
    mode = config.actor_rollout_ref.actor.policy_loss.get("loss_mode", "vanilla")
    if mode == "geo_mean" and traits.differs_between_tokens(estimator):
        raise ValueError(
            f"policy_loss.loss_mode=geo_mean takes the mean of a response's advantages, so that {name} does "
            "nothing to single tokens; set actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"
        )


def _refuse_mode(name: str, config: Any, mode: str) -> None:
    if mode == "separate_async":
        hybrid = config.actor_rollout_ref.get("hybrid_engine", True)
        raise ValueError(
            f"{name} needs policy and reference in one process, which trainer_mode=separate_async"
            f"{'' if hybrid else ' with hybrid_engine=False'} does not give; use "
            "trainer.v1.trainer_mode=credit_colocate_async"
        )
    ours = next((each for each, base in MODES.items() if base == mode), "credit_sync")
    raise ValueError(
        f"{name} needs statistics of every token, which trainer_mode={mode} does not compute; "
        f"add trainer.v1.trainer_mode={ours}"
    )


def _refuse_for_exact(choice: Choice, name: str, config: Any) -> None:
    models = config.actor_rollout_ref
    strategy = models.actor.strategy
    if strategy not in ("fsdp", "fsdp2"):
        stages = OmegaConf.select(models, "actor.megatron.pipeline_model_parallel_size", default=1)
        why = f"pipeline_model_parallel_size={stages}" if stages > 1 else "its shards of the vocabulary"
        raise ValueError(
            f"{name} takes exact statistics from FSDP engines; strategy={strategy} ({why}) gives no whole "
            f"logits of both models at once; set actor and ref strategy=fsdp2, {BINARY}"
        )
    if models.model.get("use_fused_kernels") or models.actor.get("use_fused_kernels"):
        raise ValueError(
            f"use_fused_kernels=True never forms the logits that {name} compares; set "
            f"actor_rollout_ref.model.use_fused_kernels=False, {BINARY}"
        )
    for role in ("actor", "ref"):
        if OmegaConf.select(models, f"{role}.fsdp_config.pad_to_length", default=False):
            raise ValueError(
                f"{role}.pad_to_length=True switches off the hook into verl's logits that {name} uses; set "
                f"actor_rollout_ref.{role}.pad_to_length=False, {BINARY}"
            )
    if OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode", default=False):
        raise ValueError(
            f"rollout_correction.bypass_mode=True leaves out the policy's forward pass, in which {name} "
            f"takes its statistics; set algorithm.rollout_correction.bypass_mode=False, {BINARY}"
        )
    if choice.reference and not uses_lora(models):
        _refuse_other_layout(name, models)


def _refuse_other_layout(name: str, models: Any) -> None:
    for option in ("strategy", "ulysses_sequence_parallel_size"):
        ours, theirs = (OmegaConf.select(models, f"{role}.{option}") for role in ("actor", "ref"))
        if ours != theirs:
            raise ValueError(
                f"{name} compares policy and reference shard by shard, but actor.{option}={ours} and "
                f"ref.{option}={theirs}; set actor_rollout_ref.ref.{option}={ours}"
            )


def _refuse_unbatched(name: str, ref: Any) -> None:
    """verl checks the reference's batch size only where a KL term asks for a reference."""
    sizes = ("log_prob_micro_batch_size", "log_prob_micro_batch_size_per_gpu")
    if not ref.log_prob_use_dynamic_bsz and all(ref.get(size) is None for size in sizes):
        raise ValueError(
            f"{name} runs the reference, whose batch size is not set; set actor_rollout_ref.ref."
            "log_prob_micro_batch_size_per_gpu, or use_dynamic_bsz=True for actor, rollout and ref"
        )


def _refuse_for_binary(choice: Choice, name: str, config: Any) -> None:
    bypass = OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode", default=False)
    if bypass and "normalized_entropy" in choice.statistics:
        raise ValueError(
            f"rollout_correction.bypass_mode=True leaves out the pass in which verl computes the entropy "
            f"that {name} needs; set algorithm.rollout_correction.bypass_mode=False, or "
            "+algorithm.credit.kappa=0"
        )


def uses_lora(models: Any) -> bool:
    """Whether the actor carries a LoRA adapter, so that the reference is the actor without it."""
    rank = OmegaConf.select(models, "model.lora.rank", default=0) or models.model.get("lora_rank", 0)
    return rank > 0 or models.model.get("lora_adapter_path") is not None


def report_differences(choice: Choice, config: Any) -> None:
    """Logs one line where verl's loss options, which stay as they are, differ from the paper's."""
    paper, actor = choice.estimator.loss, config.actor_rollout_ref.actor
    dual_clip = None if actor.clip_ratio_c >= NO_DUAL_CLIP else actor.clip_ratio_c
    pairs = {
        "clip_ratio_low": (actor.clip_ratio_low, paper.clip_low),
        "clip_ratio_high": (actor.clip_ratio_high, paper.clip_high),
        "clip_ratio_c": (dual_clip, paper.dual_clip or None),
        "use_kl_loss": (bool(actor.use_kl_loss), bool(paper.kl_coefficient)),
        "use_kl_in_reward": (bool(config.algorithm.use_kl_in_reward), False),
        "policy_loss.loss_mode": (actor.policy_loss.get("loss_mode", "vanilla"), "vanilla"),
    }
    aggregation = ("loss_agg_mode", actor.loss_agg_mode)
    name, hint = PREFIX + choice.estimator.name, "clip_ratio_c: None is no dual clip, a large number"
    loss_report.report_loss_differences(logger, "verl", name, paper, pairs, aggregation, _AGGREGATIONS, hint)
