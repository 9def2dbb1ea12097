"""TRL's options beside an estimator: which it makes meaningless, and which differ from its paper."""

from typing import Any

from torch.utils.data import IterableDataset
from transformers import ProcessorMixin

import credit
from credit.adapters import fields, loss_report, rules, traits
from credit.adapters.trl import recipes
from credit.adapters.trl.hooks import FRAMEWORK


def needs_statistics(estimator: credit.Estimator | None) -> bool:
    """Whether the policy has to run once more over the sampled tokens."""
    return estimator is not None and bool(fields.needed_statistics(estimator))


def needs_reference(estimator: credit.Estimator | None) -> bool:
    """Whether the reference has to run over them as well."""
    return estimator is not None and fields.needs_reference(estimator)


def refuse(
    estimator: credit.Estimator,
    args: Any,
    train_dataset: Any = None,
    processing_class: Any = None,
    **_: Any,
) -> None:
    """Raises ValueError for options that cannot work with this estimator, before a model is loaded."""
    rules.refuse_missing_fields(FRAMEWORK, estimator)
    rules.refuse_unrecorded_log_probs(FRAMEWORK, estimator, recorded=args.use_vllm)
    _refuse_other_advantages(estimator, args)
    # CISPO and VESPO weigh the log-prob of each token by its own advantage, whatever the ratio.
    if args.importance_sampling_level == "sequence" and args.loss_type not in ("cispo", "vespo"):
        option, way_out = "importance_sampling_level='sequence'", "set importance_sampling_level='token'"
        rules.refuse_one_ratio(FRAMEWORK, estimator, option, way_out)
    if args.dynamic_sampling == "resample":
        _refuse_resampling(args, train_dataset)
    if args.reweight_with_current_policy:
        _refuse_reweighting(estimator, args)
    if isinstance(processing_class, ProcessorMixin):
        refuse_images(estimator, args)


def _refuse_other_advantages(estimator: credit.Estimator, args: Any) -> None:
    """Refuses options by which TRL would combine or scale the rewards itself."""
    if args.scale_rewards != "group":
        raise rules.no_effect_error(
            f"scale_rewards={args.scale_rewards!r}",
            f"advantage_estimator={estimator.name!r}",
            "scales the rewards itself",
            "leave it out (dr_grpo does not scale)",
        )
    weighs, weigher = traits.weighs_rewards(estimator), traits.find_weigher(estimator)
    if weighs and weigher is None:
        raise ValueError(
            f"{estimator.name} passes on one reward per completion, but one of its parts weighs the rewards "
            "of several functions (gdpo); use that estimator alone"
        )
    if args.multi_objective_aggregation != "sum_then_normalize" and not weighs:
        raise rules.no_effect_error(
            f"multi_objective_aggregation={args.multi_objective_aggregation!r}",
            f"advantage_estimator={estimator.name!r}",
            "gets the weighted sum of the rewards",
            "leave it out (gdpo gets the rewards one by one)",
        )
    own_weights = getattr(weigher, "reward_weights", None)
    if own_weights is not None and args.reward_weights is not None:
        raise ValueError(f"reward_weights is given twice, to TRL and to {estimator.name}; leave one out")


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


def _refuse_reweighting(estimator: credit.Estimator, args: Any) -> None:
    parts = [part.estimator for part in traits.list_parts(estimator)]
    follows = all(part.redistributes and part.row_local and part.is_product for part in parts)
    if not (needs_statistics(estimator) and follows):
        raise ValueError(
            f"reweight_with_current_policy has no use with {estimator.name}: it is for estimators such as "
            "dgpo, whose token weights depend on the policy and on one completion at a time; leave it out"
        )
    if args.num_iterations * args.steps_per_generation <= args.gradient_accumulation_steps:
        raise ValueError(
            "reweight_with_current_policy has no effect, since each batch serves a single step; raise "
            "num_iterations or steps_per_generation, or leave it out"
        )


def refuse_images(estimator: credit.Estimator, args: Any) -> None:
    """Raises ValueError if the estimator or dynamic sampling cannot work with image inputs."""
    rules.refuse_images(FRAMEWORK, estimator)
    if args.dynamic_sampling == "resample":
        raise ValueError("dynamic_sampling='resample' is for text models; use 'filter' with image inputs")


def report_differences(estimator: credit.Estimator, args: Any) -> None:
    """Logs one line if TRL's loss options, which stay as they are, differ from the paper's."""
    paper = estimator.loss
    options = {
        "epsilon": (args.epsilon, paper.clip_low),
        "epsilon_high": (args.epsilon if args.epsilon_high is None else args.epsilon_high, paper.clip_high),
        "delta": (args.delta, paper.dual_clip),
        "beta": (args.beta, paper.kl_coefficient),
    }
    recipe = recipes.recipe_options(args)
    options |= {
        name: (getattr(args, name), recipe[name]) for name in recipe if name not in (*options, "loss_type")
    }
    loss_report.report_loss_differences(FRAMEWORK, estimator, options, ("loss_type", args.loss_type))
