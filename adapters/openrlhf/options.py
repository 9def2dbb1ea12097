"""OpenRLHF's options beside an estimator: what cannot work with it, and what differs from its paper."""

import logging
from typing import Any

import credit
from credit.adapters import loss_report, traits
from credit.adapters.fields import PROVIDED
from credit.adapters.openrlhf.settings import Choice

logger = logging.getLogger("credit")

CLIP_RANGE = (-10, 10)  # OpenRLHF's defaults
FILTER_RANGE = (0, 1)

_AGGREGATIONS = {"token-mean": "token_mean", "seq-mean-token-mean": "sequence_mean"}


def refuse(choice: Choice, args: Any) -> None:
    """A ValueError, before Ray starts, for what cannot work with this estimator."""
    estimator = choice.estimator
    missing = [name for name in estimator.needs if name not in PROVIDED]
    if missing:
        raise ValueError(f"{estimator.name} needs {', '.join(missing)}, which OpenRLHF does not provide")
    if "rollout_log_probs" in estimator.needs and not _records_rollouts(args.algo.advantage):
        raise ValueError(
            f"{estimator.name} needs rollout_log_probs, which OpenRLHF records for its correction only; set "
            "--algo.advantage.is_correction_level token (--algo.advantage.is_correction_enable before 0.11.2)"
        )
    if args.rollout.n_samples_per_prompt < 2 and not traits.learns_from_single_responses(estimator):
        raise ValueError(
            f"{estimator.name} compares the responses to a prompt, so that with a single one every advantage "
            "is 0; set --rollout.n_samples_per_prompt to 2 or more"
        )
    if traits.weighs_rewards(estimator):
        raise ValueError(
            f"{estimator.name} weighs several rewards, and OpenRLHF hands over one per response; take "
            "another estimator, such as reinforce_plus_plus_baseline"
        )
    if args.actor.policy_loss_type == "gspo" and traits.differs_between_tokens(estimator):
        raise ValueError(
            "--actor.policy_loss_type gspo gives all tokens of a response one ratio, so that the loss sees "
            f"the mean of their advantages, and {estimator.name} does nothing to single tokens; leave it out"
        )
    _refuse_without_effect(estimator, args)
    if choice.statistics:
        _refuse_for_statistics(estimator, args)


def _records_rollouts(advantage: Any) -> bool:
    level = getattr(advantage, "is_correction_level", "off")
    return level != "off" or getattr(advantage, "is_correction_enable", False)


def _refuse_without_effect(estimator: credit.Estimator, args: Any) -> None:
    kl, advantage = args.algo.kl, args.algo.advantage
    if kl.init_coef > 0 and not kl.use_loss:
        raise ValueError(
            f"--algo.kl.init_coef {kl.init_coef:g} puts a KL penalty into the reward of each token, where "
            f"{estimator.name} takes one reward per response; set --algo.kl.init_coef 0, or add "
            "--algo.kl.use_loss for a KL term in the loss"
        )
    clips = tuple(args.reward.clip_range) != CLIP_RANGE and not traits.is_product(estimator)
    filters = tuple(args.algo.dynamic_filtering_range) != FILTER_RANGE
    for given, flag, reason in (
        (advantage.gamma != 1, "--algo.advantage.gamma", "has settings of its own, --credit.*"),
        (
            advantage.no_std_norm,
            "--algo.advantage.no_std_norm",
            "scales the rewards itself (credit_dr_grpo does not scale)",
        ),
        (clips, "--reward.clip_range", "computes its advantages as a whole, with no A_i to clip"),
        (
            filters,
            "--algo.dynamic_filtering_range",
            "keeps a prompt where its scores differ, whatever their mean",
        ),
    ):
        if given:
            raise ValueError(f"{flag} has no effect with {estimator.name}, which {reason}; leave it out")


def _refuse_for_statistics(estimator: credit.Estimator, args: Any) -> None:
    sizes = {
        "--ds.ring_attn_size": args.ds.ring_attn_size,
        "--ds.tensor_parallel_size": args.ds.tensor_parallel_size,
    }
    for flag, size in sizes.items():
        if size > 1:
            raise ValueError(
                f"{flag} {size} has not been tested with the token statistics that {estimator.name} needs; "
                f"set {flag} 1, or take an estimator of rewards alone, such as grpo or dapo"
            )
    if getattr(args.data, "max_images_per_prompt", 0) > 0:
        raise ValueError(
            f"{estimator.name} needs statistics of every token, which this adapter computes for text models "
            "only; with images take an estimator of rewards alone, such as grpo or dapo"
        )


def report_differences(choice: Choice, args: Any) -> None:
    """Logs one line where OpenRLHF's loss options, which stay as they are, differ from the paper's."""
    paper, actor, kl = choice.estimator.loss, args.actor, args.algo.kl
    low, high = actor.eps_clip_low_high or (actor.eps_clip, actor.eps_clip)
    pairs = {
        "--actor.eps_clip_low_high": ((low, high), (paper.clip_low, paper.clip_high)),
        "--actor.dual_clip": (actor.dual_clip, paper.dual_clip),
        "--actor.policy_loss_type": (
            actor.policy_loss_type,
            {"token": "ppo", "sequence": "gspo"}[paper.ratio],
        ),
        "--algo.kl.init_coef": (kl.init_coef if kl.use_loss else 0.0, paper.kl_coefficient),
    }
    # 0.10 and the first 0.11 have no such flag and do this.
    aggregation = "--actor.loss_agg_mode", getattr(actor, "loss_agg_mode", "token-mean")
    loss_report.report_loss_differences(
        logger, "OpenRLHF", choice.estimator.name, paper, pairs, aggregation, _AGGREGATIONS
    )
