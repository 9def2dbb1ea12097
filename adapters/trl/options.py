"""TRL's options beside an estimator: which it makes meaningless, and which differ from its paper."""

import logging
from typing import Any

from transformers import ProcessorMixin

import credit
from credit.adapters import differences, fields
from credit.adapters.fields import PROVIDED

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
    return estimator is not None and bool(fields.statistics(estimator))


def needs_reference(estimator: credit.Estimator | None) -> bool:
    """Whether the reference has to be run as well."""
    return estimator is not None and fields.compares(estimator)


def refuse(estimator: credit.Estimator, args: Any, processing_class: Any) -> None:
    """A ValueError for what cannot work with this estimator, before a model is loaded."""
    missing = [name for name in estimator.needs if name not in PROVIDED]
    if missing:
        raise ValueError(f"{estimator.name} needs {', '.join(missing)}, which TRL does not provide")
    if "rollout_log_probs" in estimator.needs and not args.use_vllm:
        raise ValueError(
            f"{estimator.name} needs rollout_log_probs, which TRL records with use_vllm=True only"
        )
    if args.scale_rewards != "group":
        raise ValueError(
            f"scale_rewards={args.scale_rewards!r} has no effect with advantage_estimator="
            f"{estimator.name!r}, which scales the rewards itself; leave it out (dr_grpo does not scale)"
        )
    if args.multi_objective_aggregation != "sum_then_normalize":
        raise ValueError(
            f"multi_objective_aggregation={args.multi_objective_aggregation!r} has no effect with "
            f"advantage_estimator={estimator.name!r}, which gets the weighted sum of rewards; leave it out"
        )
    if needs_statistics(estimator) and isinstance(processing_class, ProcessorMixin):
        refuse_images(estimator)


def refuse_images(estimator: credit.Estimator) -> None:
    """The error for models with image inputs."""
    raise ValueError(
        f"{estimator.name} needs statistics of every token, which this adapter computes for text models "
        f"only; use an estimator of rewards alone, such as grpo or dapo, with image inputs"
    )


def report_differences(estimator: credit.Estimator, args: Any) -> None:
    """Logs one line where TRL's loss options, which stay as they are, differ from the paper's."""
    paper = estimator.loss
    pairs = {
        "epsilon": (args.epsilon, paper.clip_low),
        "epsilon_high": (args.epsilon if args.epsilon_high is None else args.epsilon_high, paper.clip_high),
        "delta": (args.delta, paper.dual_clip),
        "beta": (args.beta, paper.kl_coefficient),
    }
    aggregation = ("loss_type", args.loss_type)
    differences.report(logger, "TRL", estimator.name, paper, pairs, aggregation, _AGGREGATIONS)
