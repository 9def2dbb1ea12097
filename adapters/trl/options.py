"""TRL's options beside an estimator: which it makes meaningless, and which differ from its paper."""

import logging
from typing import Any

from torch.utils.data import IterableDataset
from transformers import ProcessorMixin

import credit
from credit.adapters import fields, loss_report, traits
from credit.adapters.fields import PROVIDED
from credit.adapters.trl import recipes

logger = logging.getLogger(__name__)

_AGGREGATIONS = {
    "dapo": "token_mean",
    "bnpo": "token_mean",
    "grpo": "sequence_mean",
    "luspo": "sequence_sum",
    "dr_grpo": "fixed_horizon",
}


def needs_statistics(estimator: credit.Estimator | None) -> bool:
    """Whether the policy has to be run once more over the sampled tokens."""
    return estimator is not None and bool(fields.needed_statistics(estimator))


def needs_reference(estimator: credit.Estimator | None) -> bool:
    """Whether the reference has to be run as well."""
    return estimator is not None and fields.needs_reference(estimator)


def refuse(
    estimator: credit.Estimator,
    args: Any,
    train_dataset: Any = None,
    processing_class: Any = None,
    **_: Any,
) -> None:
    """A ValueError for what cannot work with this estimator, before a model is loaded."""
    missing = [name for name in estimator.needs if name not in PROVIDED]
    if missing:
        raise ValueError(f"{estimator.name} needs {', '.join(missing)}, which TRL does not provide")
    if "rollout_log_probs" in estimator.needs and not args.use_vllm:
        raise ValueError(
            f"{estimator.name} needs rollout_log_probs, which TRL records with use_vllm=True only"
        )
    _refuse_other_advantages(estimator, args)
    _refuse_one_ratio(estimator, args)
    if args.dynamic_sampling == "resample":
        _refuse_resampling(args, train_dataset)
    if args.reweight_with_current_policy:
        _refuse_reweighting(estimator, args)
    if isinstance(processing_class, ProcessorMixin):
        refuse_images(estimator, args)


def _refuse_other_advantages(estimator: credit.Estimator, args: Any) -> None:
    """What TRL would do to the rewards by itself."""
    if args.scale_rewards != "group":
        raise ValueError(
            f"scale_rewards={args.scale_rewards!r} has no effect with advantage_estimator="
            f"{estimator.name!r}, which scales the rewards itself; leave it out (dr_grpo does not scale)"
        )
    weighs = traits.weighs_rewards(estimator)
    if weighs and not hasattr(estimator, "reward_weights"):
        raise ValueError(
            f"{estimator.name} hands its parts one reward per completion, and one of them weighs several; "
            "take gdpo by itself"
        )
    if args.multi_objective_aggregation != "sum_then_normalize" and not weighs:
        raise ValueError(
            f"multi_objective_aggregation={args.multi_objective_aggregation!r} has no effect with "
            f"advantage_estimator={estimator.name!r}, which gets the weighted sum of rewards; leave it out "
            "(gdpo gets them one by one)"
        )
    if weighs and estimator.reward_weights is not None and args.reward_weights is not None:
        raise ValueError(f"reward_weights is given twice, to TRL and to {estimator.name}; leave one out")


def _refuse_one_ratio(estimator: credit.Estimator, args: Any) -> None:
    """A loss with one ratio per completion, and no log-prob per token, sees the mean of the advantages."""
    averages = args.importance_sampling_level == "sequence" and args.loss_type not in ("cispo", "vespo")
    if averages and traits.differs_between_tokens(estimator):
        raise ValueError(
            "importance_sampling_level='sequence' gives all tokens of a completion one ratio, so that the "
            f"loss sees the mean of their advantages, and {estimator.name} does nothing to single ones; set "
            "importance_sampling_level='token'"
        )


def _refuse_resampling(args: Any, train_dataset: Any) -> None:
    rows = args.per_device_train_batch_size * args.steps_per_generation
    if rows % args.num_generations:
        raise ValueError(
            f"dynamic_sampling='resample' draws whole groups on each process, but per_device_train_batch_size"
            f" * steps_per_generation = {rows} is no multiple of num_generations={args.num_generations}; "
            "change one of them, or use dynamic_sampling='filter'"
        )
    if isinstance(train_dataset, IterableDataset):
        raise ValueError(
            "dynamic_sampling='resample' draws further prompts by index, which an iterable dataset does not "
            "have; load it whole, or use dynamic_sampling='filter'"
        )


def _refuse_reweighting(estimator: credit.Estimator, args: Any) -> None:
    follows = estimator.redistributes and estimator.row_local and traits.is_product(estimator)
    if not (needs_statistics(estimator) and follows):
        raise ValueError(
            f"reweight_with_current_policy has no use with {estimator.name}: it is for weights that follow "
            "from the policy, completion by completion, as dgpo's do; leave it out"
        )
    if args.num_iterations * args.steps_per_generation <= args.gradient_accumulation_steps:
        raise ValueError(
            "reweight_with_current_policy has no effect, for each batch serves a single step; raise "
            "num_iterations or steps_per_generation, or leave it out"
        )


def refuse_images(estimator: credit.Estimator, args: Any) -> None:
    """The error for models with image inputs, where they cannot be served."""
    if needs_statistics(estimator):
        raise ValueError(
            f"{estimator.name} needs statistics of every token, which this adapter computes for text models "
            f"only; use an estimator of rewards alone, such as grpo or dapo, with image inputs"
        )
    if args.dynamic_sampling == "resample":
        raise ValueError("dynamic_sampling='resample' is for text models; use 'filter' with image inputs")


def report_differences(estimator: credit.Estimator, args: Any) -> None:
    """Logs one line where TRL's loss options, which stay as they are, differ from the paper's."""
    paper = estimator.loss
    pairs = {
        "epsilon": (args.epsilon, paper.clip_low),
        "epsilon_high": (args.epsilon if args.epsilon_high is None else args.epsilon_high, paper.clip_high),
        "delta": (args.delta, paper.dual_clip),
        "beta": (args.beta, paper.kl_coefficient),
    }
    wanted = recipes.recipe_options(args)
    pairs |= {
        name: (getattr(args, name), wanted[name]) for name in wanted if name not in (*pairs, "loss_type")
    }
    aggregation = ("loss_type", args.loss_type)
    loss_report.report_loss_differences(
        logger, "TRL", estimator.name, paper, pairs, aggregation, _AGGREGATIONS
    )
