"""TRL's options beside an estimator: which it makes meaningless, and which differ from its paper."""

from collections.abc import Collection
from typing import Any

from torch.utils.data import IterableDataset

import credit
from credit.adapters import fields, loss_report, rules, traits
from credit.adapters.trl import recipes
from credit.adapters.trl.hooks import FRAMEWORK
from credit.estimators.on_baseline import OnBaseline

# The loss types of TRL that are objectives of their own, named as in PolicyLoss, and how each aggregates.
AGGREGATIONS = {"cispo": "token_mean", "sapo": "sequence_mean", "vespo": "token_mean"}

SCALINGS = tuple(filter(None, traits.SCALES))  # the values of scale_rewards
# The estimators, each fit to be the base of another, that agree with what TRL's options may ask for.
AGREEING = {"none": "dr_grpo", "batch": "lite_ppo", "normalize_then_sum": "gdpo"}


def refuse(
    estimator: credit.Estimator,
    args: Any,
    train_dataset: Any = None,
    rollout_func: Any = None,
    **_: Any,
) -> None:
    """Raises ValueError for options that cannot work with this estimator, before a model is loaded."""
    rules.refuse_missing_fields(FRAMEWORK, estimator)
    recorded = args.use_vllm or rollout_func is not None
    rules.refuse_unrecorded_log_probs(FRAMEWORK, estimator, recorded=recorded)
    _refuse_other_advantages(estimator, args)
    if args.dynamic_sampling == "resample":
        _refuse_resampling(args, train_dataset)
    _refuse_idle_filter(estimator, args)
    if args.reweight_with_current_policy:
        _refuse_reweighting(estimator, args)


def _refuse_other_advantages(estimator: credit.Estimator, args: Any) -> None:
    """Refuses options by which TRL would combine or scale the rewards otherwise than the estimator does."""
    scaling, combining = args.scale_rewards, args.multi_objective_aggregation
    if scaling not in SCALINGS:
        raise ValueError(f"scale_rewards is {scaling!r}; expected {', '.join(map(repr, SCALINGS))}")
    if scaling != "group":  # TRL's default, which cannot be told from an option that is not set
        scale = traits.find_reward_scale(estimator)
        if scale != scaling:
            option = f"scale_rewards={scaling!r}"
            raise _contradiction(option, estimator, traits.SCALES[scale], AGREEING[scaling])
    rules.refuse_weighing_parts(estimator)
    weighs, weigher = traits.weighs_rewards(estimator), traits.find_weigher(estimator)
    if combining != "sum_then_normalize" and not traits.normalizes_each_reward(estimator):
        does = (
            "combines the rewards in a way of its own" if weighs else "gets the weighted sum of the rewards"
        )
        option = f"multi_objective_aggregation={combining!r}"
        raise _contradiction(option, estimator, f"which {does}", AGREEING["normalize_then_sum"])
    own_weights = getattr(weigher, "reward_weights", None)
    if own_weights is not None and args.reward_weights is not None:
        raise ValueError(f"reward_weights is given twice, to TRL and to {estimator.name}; leave one out")


def _contradiction(option: str, estimator: credit.Estimator, does: str, agreeing: str) -> ValueError:
    """The error for an option that says something else than the estimator `does`."""
    based = isinstance(estimator, OnBaseline)
    change = (
        f"advantage_estimator_kwargs={{'base': {agreeing!r}}}"
        if based
        else f"advantage_estimator={agreeing!r}"
    )
    return ValueError(
        f"{option} contradicts advantage_estimator={estimator.name!r}, {does}; leave it out, or set {change}"
    )


def _refuse_idle_filter(estimator: credit.Estimator, args: Any) -> None:
    """Refuses a reward that would decide about groups where no group is left out, or two of them."""
    chosen, filters = args.dynamic_sampling_reward, traits.find_filters(estimator)
    given = {
        "dynamic_sampling_reward": chosen,
        f"filter_by of {estimator.name}": filters[0] if filters else None,
    }
    set_ones = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    if len(set_ones) == 2:
        raise ValueError(f"{' and '.join(set_ones)} both say which reward decides; leave one out")
    if set_ones and not (args.dynamic_sampling or traits.filters_groups(estimator)):
        raise ValueError(
            f"{set_ones[0]} has no effect, since {estimator.name} keeps every group; set "
            "dynamic_sampling='filter' or 'resample', or leave it out"
        )
    if set_ones and args.dynamic_sampling == "none":
        raise ValueError(f"{set_ones[0]} has no effect with dynamic_sampling='none'; leave one out")


def _refuse_resampling(args: Any, train_dataset: Any) -> None:
    rows = args.per_device_train_batch_size * args.steps_per_generation
    if rows % args.num_generations:
        raise ValueError(
            "dynamic_sampling='resample' draws whole groups on each process, but per_device_train_batch_size "
            f"* steps_per_generation = {rows} is not a multiple of num_generations={args.num_generations}; "
            "change one of them, or use dynamic_sampling='filter'"
        )
    if isinstance(train_dataset, IterableDataset):
        raise ValueError(
            "dynamic_sampling='resample' draws further prompts by index, which an iterable dataset does not "
            "allow; load the whole dataset, or use dynamic_sampling='filter'"
        )
    refuse_resampled_images(args, getattr(train_dataset, "column_names", None) or (), "the data set")


def _refuse_reweighting(estimator: credit.Estimator, args: Any) -> None:
    parts = [part.estimator for part in traits.list_parts(estimator)]
    follows = all(part.redistributes and part.row_local and part.is_product for part in parts)
    if not (fields.needed_statistics(estimator) and follows):
        raise ValueError(
            f"reweight_with_current_policy has no use with {estimator.name}: it is for estimators such as "
            "dgpo, whose token weights depend on the policy and on one completion at a time; leave it out"
        )
    if args.num_iterations * args.steps_per_generation <= args.gradient_accumulation_steps:
        raise ValueError(
            "reweight_with_current_policy has no effect, since each batch serves a single step; raise "
            "num_iterations or steps_per_generation, or leave it out"
        )


def refuse_resampled_images(args: Any, names: Collection[str], place: str) -> None:
    """Raises ValueError if dynamic sampling would merge generations whose prompts have images.

    Args:
        args: TRL's config.
        names: of the data set's columns, or of the arrays of a batch.
        place: what has those names, for the message.
    """
    found = [name for name in ("image", "images", "pixel_values") if name in names]
    if found and args.dynamic_sampling == "resample":
        raise ValueError(
            f"dynamic_sampling='resample' is for prompts of text alone, and {place} has {found[0]!r}; use "
            "dynamic_sampling='filter' with images"
        )


def report_differences(estimator: credit.Estimator, args: Any) -> None:
    """Logs one line if TRL's loss options, which stay as they are, differ from the paper's."""
    paper = estimator.loss
    options = clip_options(paper, args) | {
        "dual_clip": ("delta", args.delta, paper.dual_clip),
        "kl_coefficient": ("beta", args.beta, paper.kl_coefficient),
        "ratio": ("importance_sampling_level", args.importance_sampling_level, paper.ratio),
    }
    aggregation: tuple[str, str] | None = ("loss_type", args.loss_type)
    if paper.horizon is not None:
        options["horizon"] = ("max_completion_length", args.max_completion_length, paper.horizon)
    if paper.objective in AGGREGATIONS:
        options |= _named_objective(paper, args)
        aggregation = None
    if paper.rollout_cap is not None:
        options |= _rollout_options(paper, args)
    expressed = {option for option, _, _ in options.values()}
    recipe = {n: v for n, v in recipes.recipe_options(args).items() if n not in (*expressed, "loss_type")}
    further = [(name, getattr(args, name), value) for name, value in recipe.items()]
    loss_report.report_loss_differences(FRAMEWORK, estimator, options, aggregation, further)


def clip_options(paper: credit.PolicyLoss, args: Any) -> dict[str, loss_report.Option]:
    """TRL's clips and the paper's."""
    return {
        "clip_low": ("epsilon", args.epsilon, paper.clip_low),
        "clip_high": ("epsilon_high", _upper_clip(args), paper.clip_high),
    }


def _upper_clip(args: Any) -> float:
    return float(args.epsilon if args.epsilon_high is None else args.epsilon_high)


def _named_objective(paper: credit.PolicyLoss, args: Any) -> dict[str, loss_report.Option]:
    """The objectives that have a loss_type of their own, each with one aggregation."""
    options: dict[str, loss_report.Option] = {
        "objective": ("loss_type", args.loss_type, paper.objective),
        "aggregation": (
            f"the aggregation of loss_type {paper.objective}",
            AGGREGATIONS[paper.objective],
            paper.aggregation,
        ),
    }
    if paper.objective == "sapo":
        high, low = args.sapo_temperature_pos, args.sapo_temperature_neg
        options["temperature_positive"] = ("sapo_temperature_pos", high, paper.temperature_positive)
        options["temperature_negative"] = ("sapo_temperature_neg", low, paper.temperature_negative)
    if paper.objective == "vespo":
        positive = (args.vespo_k_pos, args.vespo_lambda_pos)
        negative = (args.vespo_k_neg, args.vespo_lambda_neg)
        options["kernel_positive"] = ("vespo_k_pos and lambda_pos", positive, paper.kernel_positive)
        options["kernel_negative"] = ("vespo_k_neg and lambda_neg", negative, paper.kernel_negative)
    if paper.objective == "cispo":  # TRL bounds the ratio by epsilon_high itself, and not from below
        options["clip_low"] = ("the lower clip of loss_type cispo", 1.0, paper.clip_low)
        options["clip_high"] = ("epsilon_high", _upper_clip(args), 1.0 + paper.clip_high)
    return options


def _rollout_options(paper: credit.PolicyLoss, args: Any) -> dict[str, loss_report.Option]:
    corrects = args.use_vllm and args.vllm_importance_sampling_correction
    wanted = f"{paper.rollout_level}_{paper.rollout_rule}"
    mode = (
        "vllm_importance_sampling_mode",
        args.vllm_importance_sampling_mode if corrects else None,
        wanted,
    )
    highest, lowest = args.vllm_importance_sampling_clip_max, args.vllm_importance_sampling_clip_min
    return {
        "rollout_cap": ("vllm_importance_sampling_clip_max", highest, paper.rollout_cap),
        "rollout_floor": ("vllm_importance_sampling_clip_min", lowest, paper.rollout_floor),
        "rollout_rule": mode,
        "rollout_level": mode,
    }
