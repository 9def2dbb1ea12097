"""ms-swift's options beside an estimator: which cannot work with it, and which differ from its paper."""

from collections.abc import Sequence
from typing import Any

import credit
from credit.adapters import fields, loss_report, rules, traits
from credit.adapters.swift.hooks import FRAMEWORK

# The estimators that agree with a value of --scale_rewards.
AGREEING = {"none": "dr_grpo", "batch": "lite_ppo", "gdpo": "gdpo"}
TEACHER_COLUMNS = ("teacher_prompt", "teacher_images")
# The loss types that are objectives of their own, and how each aggregates.
AGGREGATIONS = {"cispo": "token_mean", "sapo": "sequence_mean"}


def refuse(estimator: credit.Estimator, args: Any) -> None:
    """Raises ValueError for options that cannot work with this estimator, before a model is loaded."""
    rules.refuse_missing_fields(FRAMEWORK, estimator)
    rules.refuse_unrecorded_log_probs(FRAMEWORK, estimator, recorded=args.use_vllm)
    rules.refuse_single_responses(FRAMEWORK, estimator, args.num_generations)
    _refuse_other_advantages(estimator, args)
    _refuse_scaling(estimator, args)
    _refuse_averages(estimator, args)
    _refuse_places(estimator, args)
    rules.refuse_weighing_parts(estimator)
    own_weights = getattr(traits.find_weigher(estimator), "reward_weights", None)
    if own_weights is not None and args.reward_weights is not None:
        raise ValueError(f"--reward_weights is given, and {estimator.name} has its own; leave one out")
    if not args.temperature > 0:
        raise ValueError(
            f"--temperature {args.temperature} samples greedily, so that all completions of a prompt are the "
            "same and their advantages 0; set it above 0"
        )


def _refuse_other_advantages(estimator: credit.Estimator, args: Any) -> None:
    """Options by which ms-swift would compute advantages, or change them, in its own way."""
    teacher = args.teacher_model is not None or args.teacher_model_server is not None
    # ms-swift clears --teacher_model where it is the model without its adapter.
    teacher = teacher or getattr(args, "_teacher_use_disable_adapter", False)
    found = {
        f"--advantage_estimator {args.advantage_estimator}": args.advantage_estimator != "grpo",
        f"--advantage_reweight {args.advantage_reweight}": args.advantage_reweight is not None,
        "--teacher_model or --teacher_model_server": teacher,
        f"--sdar_loss_coef {args.sdar_loss_coef}": args.sdar_loss_coef > 0,
    }
    for option, is_set in found.items():
        if is_set:
            raise ValueError(
                f"{option} is another way to give tokens their advantages than {estimator.name}, which "
                "train_with names; leave one of the two out"
            )
    if args.kl_in_reward and args.beta != 0.0:
        raise rules.no_effect_error(
            "--kl_in_reward true",
            estimator.name,
            "gets the rewards of the reward functions alone",
            "set it to false for a KL term in the loss, or use train_with('reinforce_plus_plus') with a "
            "kl_coefficient",
        )


def _refuse_scaling(estimator: credit.Estimator, args: Any) -> None:
    """A --scale_rewards that says something else than the estimator does."""
    scaling = args.scale_rewards
    if scaling in (None, "group"):  # ms-swift's default, which cannot be told from an option that is set
        return
    if scaling == "gdpo":
        agrees, does = traits.normalizes_each_reward(estimator), "which does not normalize each reward"
    else:
        scale = traits.find_reward_scale(estimator)
        agrees, does = scale == scaling, traits.SCALES[scale]
    if not agrees:
        raise ValueError(
            f"--scale_rewards {scaling} contradicts {estimator.name}, {does}; leave it out, or name "
            f"{AGREEING[scaling]} in train_with"
        )


def _refuse_averages(estimator: credit.Estimator, args: Any) -> None:
    """Options with which ms-swift's loss takes one advantage, or one ratio, for all tokens of a response."""
    if args.importance_sampling_level == "sequence":
        way_out = "use --importance_sampling_level sequence_token (GSPO-token), which keeps them"
        rules.refuse_one_ratio(FRAMEWORK, estimator, "--importance_sampling_level sequence", way_out)
    averaging = {
        "--use_liger_kernel true": args.use_liger_kernel,
        "--loss_type real": args.loss_type == "real",
    }
    for option, is_set in averaging.items():
        if is_set and traits.differs_between_tokens(estimator):
            raise ValueError(
                f"{option} averages the advantages of a response's tokens before the loss, which cancels the "
                f"token weights of {estimator.name}; leave it out"
            )


def _refuse_places(estimator: credit.Estimator, args: Any) -> None:
    """Ways to run in which nobody has seen this adapter give right numbers."""
    if getattr(args, "use_ray", False):
        raise ValueError(
            "--use_ray true builds the trainer in other processes than the one in which train_with was "
            "called; leave it out"
        )
    statistics, parts = fields.needed_statistics(estimator), args.sequence_parallel_size
    if statistics and parts > 1 and args.eval_strategy != "no":
        raise ValueError(
            f"with --sequence_parallel_size {parts} ms-swift evaluates a part of the completions only, and "
            f"{estimator.name} compares whole groups; set --eval_strategy no"
        )


def refuse_columns(estimator: credit.Estimator, *data_sets: Any) -> None:
    """Raises ValueError for columns that make ms-swift distil from a teacher."""
    for data_set in data_sets:
        found = [name for name in TEACHER_COLUMNS if name in (getattr(data_set, "column_names", None) or ())]
        if found:
            raise _teacher_error(estimator.name, f"the data set's column {found[0]!r} makes")


def refuse_teacher(name: str, samples: Sequence[Any]) -> None:
    """Raises ValueError for samples that are meant for a teacher; a stream names no columns before."""
    if any(sample.teacher_prompt or sample.teacher_images is not None for sample in samples):
        raise _teacher_error(name, "a teacher_prompt or teacher_images of the data makes")


def _teacher_error(name: str, what: str) -> ValueError:
    return ValueError(
        f"{what} ms-swift distil from a teacher, which is another way to give tokens their advantages than "
        f"{name}; leave it out, or give the teacher's log-probs as extra.teacher_log_probs to opd or rlsd"
    )


def report_differences(estimator: credit.Estimator, args: Any) -> None:
    """Logs one line if ms-swift's loss options, which stay as they are, differ from the paper's."""
    paper = estimator.loss
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    level = "token" if args.importance_sampling_level == "token" else "sequence"  # or sequence_token
    options: dict[str, loss_report.Option] = {
        "clip_low": ("epsilon", args.epsilon, paper.clip_low),
        "clip_high": ("epsilon_high", high, paper.clip_high),
        "dual_clip": ("delta", args.delta, paper.dual_clip),
        "kl_coefficient": ("beta", args.beta, paper.kl_coefficient),
        "ratio": ("importance_sampling_level", level, paper.ratio),
    }
    aggregation: tuple[str, str] | None = ("loss_type", args.loss_type)
    if paper.horizon is not None:
        options["horizon"] = ("max_completion_length", args.max_completion_length, paper.horizon)
    if paper.objective in AGGREGATIONS:
        options |= _named_objective(paper, args, high)
        aggregation = None
    if paper.rollout_cap is not None:
        mode, threshold = args.rollout_importance_sampling_mode, args.rollout_importance_sampling_threshold
        rule = {"clip": "truncate", "mask": "mask"}[paper.rollout_rule]
        wanted = ("rollout_importance_sampling_mode", mode, f"{paper.rollout_level}_{rule}")
        options |= {"rollout_rule": wanted, "rollout_level": wanted}
        options["rollout_cap"] = ("rollout_importance_sampling_threshold", threshold, paper.rollout_cap)
    loss_report.report_loss_differences(FRAMEWORK, estimator, options, aggregation)


def _named_objective(paper: credit.PolicyLoss, args: Any, high: float) -> dict[str, loss_report.Option]:
    """The objectives that have a loss_type of their own, each with one aggregation."""
    kind = paper.objective
    options: dict[str, loss_report.Option] = {
        "objective": ("loss_type", args.loss_type, kind),
        "aggregation": (f"the aggregation of loss_type {kind}", AGGREGATIONS[kind], paper.aggregation),
    }
    if kind == "sapo":
        options["temperature_positive"] = ("tau_pos", args.tau_pos, paper.temperature_positive)
        options["temperature_negative"] = ("tau_neg", args.tau_neg, paper.temperature_negative)
    else:  # ms-swift bounds cispo's ratio by epsilon_high itself, and not from below
        options["clip_low"] = ("the lower clip of loss_type cispo", 1.0, paper.clip_low)
        options["clip_high"] = ("epsilon_high", high, 1.0 + paper.clip_high)
    return options
