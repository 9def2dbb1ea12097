"""slime's options beside an estimator: which cannot work with it, and which differ from its paper."""

from typing import Any

import credit
from credit.adapters import loss_report, rules
from credit.adapters.slime import sources
from credit.adapters.slime.hooks import FRAMEWORK
from credit.adapters.slime.settings import AdapterSettings
from credit.adapters.traits import filters_groups

NORMALIZED = ("grpo", "gspo", "cispo", "reinforce_plus_plus_baseline")
"""Values of --advantage-estimator with which slime normalizes the rewards by itself."""
TEACHERS = "extra.teacher_log_probs"


def refuse(estimator: credit.Estimator, args: Any) -> None:
    """Raises ValueError for options that cannot work with this estimator."""
    rules.refuse_missing_fields(FRAMEWORK, estimator)
    rules.refuse_several_rewards(FRAMEWORK, estimator, "one reward per sample, of --reward-key")
    rules.refuse_filter_by(
        FRAMEWORK,
        estimator,
        "which passes on one reward per sample",
        "leave it out, and let --reward-key name the reward",
    )
    rules.refuse_single_responses(FRAMEWORK, estimator, args.n_samples_per_prompt)
    _refuse_other_advantages(estimator, args)
    _refuse_normalized_rewards(estimator, args)
    _refuse_cut_groups(estimator, args)
    _refuse_filters(estimator, args)
    _refuse_schedules(estimator, args)
    sources.refuse(estimator, args)


def _refuse_other_advantages(estimator: credit.Estimator, args: Any) -> None:
    """Options by which slime would train on other advantages than the estimator's, or on none."""
    if args.use_critic or args.advantage_estimator == "ppo":
        raise ValueError(
            "--advantage-estimator ppo has slime train a critic, to which it hands the same function for "
            f"advantages; with {estimator.name} leave it at grpo, which then says nothing but the loss"
        )
    if args.advantage_estimator == "gspo":
        rules.refuse_one_ratio(FRAMEWORK, estimator, "--advantage-estimator gspo", "use grpo or cispo")
    if not args.compute_advantages_and_returns:
        raise ValueError(
            f"--disable-compute-advantages-and-returns has slime call no function for advantages, so "
            f"{estimator.name} would never run; leave it out"
        )
    if args.loss_type == "sft_loss":
        raise ValueError(
            f"--loss-type sft_loss reads no advantages, so {estimator.name} has no effect; use policy_loss"
        )
    if args.normalize_advantages:
        raise ValueError(
            f"--normalize-advantages whitens what {estimator.name} has computed over the batch; leave it out "
            "(slime asks for it with --advantage-estimator reinforce_plus_plus and "
            "reinforce_plus_plus_baseline: leave that at grpo and take credit's estimator of that name)"
        )
    if args.use_opd and args.opd_kl_coef != 0 and TEACHERS in estimator.required_fields:
        raise ValueError(
            f"--use-opd adds the teacher's term to the advantages of {estimator.name}, which has it already; "
            "set --opd-kl-coef 0, with which slime still fetches the teacher's log-probs"
        )


def _refuse_normalized_rewards(estimator: credit.Estimator, args: Any) -> None:
    """Rewards that slime has normalized by group before the estimator sees them."""
    own = args.custom_reward_post_process_path is None  # a function of the user's returns what they want
    if own and args.rewards_normalization and args.advantage_estimator in NORMALIZED:
        raise ValueError(
            f"slime normalizes the rewards by group before {estimator.name} sees them; set "
            "--disable-rewards-normalization"
        )


def _refuse_cut_groups(estimator: credit.Estimator, args: Any) -> None:
    """Batches whose last samples slime drops, and with them a part of a group."""
    whole = args.rollout_batch_size * args.n_samples_per_prompt
    if whole % args.global_batch_size:
        raise ValueError(
            f"--global-batch-size {args.global_batch_size} does not divide the {whole} rollouts of a batch; "
            f"slime drops the rest, and {estimator.name} would compare what is left of their group. Set a "
            "divisor"
        )


def _refuse_filters(estimator: credit.Estimator, args: Any) -> None:
    """An estimator that says which groups train, where slime samples without asking."""
    if filters_groups(estimator) and args.dynamic_sampling_filter_path is None:
        raise ValueError(
            f"{estimator.name} trains on groups whose rewards differ, and slime samples others in the place "
            "of the rest only with a filter; set --dynamic-sampling-filter-path "
            "credit.adapters.slime.keep_group"
        )


def _refuse_schedules(estimator: credit.Estimator, args: Any) -> None:
    """A setting that changes over training, where the process cannot know how far it is."""
    if "progress" not in estimator.required_fields:
        return
    if args.release_train:
        raise ValueError(
            f"a setting of {estimator.name} is a schedule, and --release-train starts the training processes "
            "anew for each rollout, which are not told how many there were; give the setting a number"
        )
    if args.start_rollout_id is None:
        raise ValueError(
            f"a setting of {estimator.name} is a schedule, and slime does not tell training processes with "
            "which rollout a resumed run begins; set --start-rollout-id, or give the setting a number"
        )


def refuse_records(settings: AdapterSettings, args: Any) -> None:
    """Raises ValueError where completions would be recorded in no place, or at steps that nobody counts."""
    if settings.record_steps is None:
        return
    if args.release_train:
        raise ValueError(
            "record_steps counts rollouts, and --release-train starts the training processes anew for each; "
            "leave one of the two out"
        )
    if settings.record_path is None and args.save is None:
        raise ValueError("record_steps is set, and --save is not; set record_path, or --save")


def report_differences(estimator: credit.Estimator, args: Any) -> None:
    """Logs one line if slime's loss options, which stay as they are, differ from the paper's."""
    paper = estimator.loss
    coefficient = args.kl_loss_coef if args.use_kl_loss else 0.0
    low, high = args.eps_clip, args.eps_clip_high
    objective = "cispo" if args.advantage_estimator == "cispo" else "clip"
    options: dict[str, loss_report.Option] = {
        "objective": ("--advantage-estimator", objective, paper.objective),
        "clip_low": ("--eps-clip", low, paper.clip_low),
        "clip_high": ("--eps-clip-high", low if high is None else high, paper.clip_high),
        "dual_clip": ("--eps-clip-c", args.eps_clip_c, paper.dual_clip),
        "kl_coefficient": ("--kl-loss-coef", coefficient, paper.kl_coefficient),
    }
    if args.advantage_estimator == "gspo" or paper.ratio == "sequence":
        ratio = "sequence" if args.advantage_estimator == "gspo" else "token"
        options["ratio"] = ("the ratio of --advantage-estimator", ratio, paper.ratio)
    if paper.rollout_cap is not None:
        options["rollout_cap"] = (
            "--tis-clip",
            args.tis_clip if args.use_tis else None,
            paper.rollout_cap,
        )
    mean = "--calculate-per-token-loss" if args.calculate_per_token_loss else "the mean over rollouts"
    loss_report.report_loss_differences(FRAMEWORK, estimator, options, ("the loss's mean", mean))
