"""OpenRLHF's options beside an estimator: what cannot work with it, and what differs from its paper."""

from typing import Any

import credit
from credit.adapters import loss_report, rules, traits
from credit.adapters.openrlhf import clipping, whitening
from credit.adapters.openrlhf.hooks import FRAMEWORK
from credit.adapters.openrlhf.settings import Choice

CLIP_RANGE = (-10, 10)  # OpenRLHF's defaults
FILTER_RANGE = (0, 1)


def refuse(choice: Choice, args: Any) -> None:
    """Raises ValueError for options that cannot work with this estimator, before Ray starts."""
    estimator = choice.estimator
    rules.refuse_missing_fields(FRAMEWORK, estimator)
    recorded = _records_log_probs(args.algo.advantage)
    rules.refuse_unrecorded_log_probs(FRAMEWORK, estimator, recorded)
    rules.refuse_single_responses(FRAMEWORK, estimator, args.rollout.n_samples_per_prompt)
    rules.refuse_several_rewards(FRAMEWORK, estimator, "one reward per response")
    own_filter = "leave it out, and return what is to decide as `scores` beside the rewards"
    rules.refuse_filter_by(FRAMEWORK, estimator, "which filters groups by their scores", own_filter)
    if args.actor.policy_loss_type == "gspo":
        rules.refuse_one_ratio(FRAMEWORK, estimator, "--actor.policy_loss_type gspo", "leave it out")
    low, high = args.reward.clip_range
    if not low < high:
        raise ValueError(f"--reward.clip_range {low:g} {high:g} is no range; give the lower bound first")
    _refuse_without_effect(estimator, args)
    _refuse_for_lora(args.ds)
    if choice.statistics:
        _refuse_packed_images(estimator, args)


def _records_log_probs(advantage: Any) -> bool:
    level = getattr(advantage, "is_correction_level", "off")
    return level != "off" or getattr(advantage, "is_correction_enable", False)


def _refuse_without_effect(estimator: credit.Estimator, args: Any) -> None:
    kl, name = args.algo.kl, estimator.name
    if kl.init_coef > 0 and not kl.use_loss:
        raise ValueError(
            f"--algo.kl.init_coef {kl.init_coef:g} puts a KL penalty into the reward of each token, but "
            f"{name} takes one reward per response; set --algo.kl.init_coef 0, or add "
            "--algo.kl.use_loss for a KL term in the loss"
        )
    if args.algo.advantage.no_std_norm and not whitening.whitens(estimator):
        reason = "does not whiten over the batch's tokens"
        way_out = "leave it out (credit_dr_grpo divides by no standard deviation)"
        raise rules.no_effect_error(whitening.FLAG, name, reason, way_out)
    parts = [part.estimator for part in traits.list_parts(estimator)]
    whole = [part.name for part in parts if clipping.find_place(part) is None]
    if whole and tuple(args.reward.clip_range) != CLIP_RANGE:
        of_part = f"has the part {whole[0]}, which " if whole[0] != name else ""
        reason = f"{of_part}has no reward or advantage A_i per response that could be clipped"
        raise rules.no_effect_error("--reward.clip_range", name, reason)


def _refuse_packed_images(estimator: credit.Estimator, args: Any) -> None:
    """Options that make OpenRLHF pack rows with images after it has refused --ds.packing_samples for them."""
    if getattr(args.data, "max_images_per_prompt", 0) <= 0:
        return
    packing = {
        "--train.dynamic_batch_enable": args.train.dynamic_batch_enable,
        f"--ds.ring_attn_size {args.ds.ring_attn_size}": args.ds.ring_attn_size > 1,
    }
    for flag, packs in packing.items():
        if packs:
            raise ValueError(
                f"{flag} packs the rows, so that vision models lose the positions of their tokens and with "
                f"them the statistics that {estimator.name} needs; leave it out, or train without images"
            )


def _refuse_for_lora(ds: Any) -> None:
    """Raises ValueError for LoRA on weights that it cannot be merged into before vLLM gets them."""
    if ds.lora.rank > 0 and ds.load_in_4bit:
        raise ValueError(
            f"--ds.load_in_4bit packs the weights that --ds.lora.rank {ds.lora.rank} adapts, and vLLM takes "
            "whole ones with the adapter merged; leave one of the two out"
        )
    if ds.lora.rank > 0 and ds.tensor_parallel_size > 1:
        raise ValueError(
            f"--ds.tensor_parallel_size {ds.tensor_parallel_size} splits the weights that --ds.lora.rank "
            f"{ds.lora.rank} adapts, which have to be whole to be merged for vLLM; set "
            "--ds.tensor_parallel_size 1, or leave LoRA out"
        )


def report_differences(choice: Choice, args: Any) -> None:
    """Logs one line if OpenRLHF's loss options, which stay as they are, differ from the paper's."""
    paper, actor, kl = choice.estimator.loss, args.actor, args.algo.kl
    loss_type = {"token": "ppo", "sequence": "gspo"}[paper.ratio]
    clips = tuple(actor.eps_clip_low_high or (actor.eps_clip, actor.eps_clip))
    clip = ("--actor.eps_clip_low_high", clips, (paper.clip_low, paper.clip_high))
    options = {
        "clip_low": clip,
        "clip_high": clip,
        "dual_clip": ("--actor.dual_clip", actor.dual_clip, paper.dual_clip),
        "ratio": ("--actor.policy_loss_type", actor.policy_loss_type, loss_type),
        "kl_coefficient": (
            "--algo.kl.init_coef",
            kl.init_coef if kl.use_loss else 0.0,
            paper.kl_coefficient,
        ),
        "kl": ("--algo.kl.estimator", kl.estimator, paper.kl),
    }
    if paper.rollout_cap is not None and paper.rollout_level == "token":
        options |= _rollout_options(paper, args.algo.advantage)
    # Releases before 0.11.2 have no such flag and take the mean over tokens.
    aggregation = "--actor.loss_agg_mode", getattr(actor, "loss_agg_mode", "token-mean")
    loss_report.report_loss_differences(FRAMEWORK, choice.estimator, options, aggregation)


def _rollout_options(paper: credit.PolicyLoss, advantage: Any) -> dict[str, loss_report.Option]:
    """OpenRLHF's correction for each token. For a sequence it has another: it filters by the mean ratio."""
    prefix = "--algo.advantage.is_correction_"
    level = getattr(advantage, "is_correction_level", "off")
    mode = getattr(advantage, "is_correction_mode", "mask")
    bounds = tuple(getattr(advantage, "is_correction_threshold", ()))
    threshold = (f"{prefix}threshold", bounds, (paper.rollout_floor or 0.0, paper.rollout_cap))
    return {
        "rollout_cap": threshold,
        "rollout_floor": threshold,
        "rollout_rule": (f"{prefix}mode", mode, {"mask": "mask", "truncate": "clip"}[paper.rollout_rule]),
        "rollout_level": (f"{prefix}level", level, "token"),
    }
