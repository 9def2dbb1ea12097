"""Tunix's options beside an estimator: what cannot work with it, and what differs from its paper."""

from typing import Any

import jax
from tunix.rl.rl_cluster import Mode, Role

import credit
from credit.adapters import fields, loss_report, rules, traits
from credit.adapters.tunix.hooks import FRAMEWORK
from credit.adapters.tunix.steps import count_micro_batches


def refuse(config: Any, cluster: Any, columns: int) -> None:
    """Raises ValueError for options that cannot work with this estimator on this cluster.

    Args:
        columns: the number of rewards of a response.
    """
    name, needs = config.estimator.name, config.estimator.required_fields
    training = cluster.cluster_config.training_config
    rules.refuse_missing_fields(FRAMEWORK, config.estimator)
    _refuse_rewards(config.estimator, columns)
    if training.max_seq_token_per_tpu is not None:
        _refuse_packing(config, training)
    if "progress" in needs and not training.max_steps:
        raise ValueError(f"{name} has a schedule; set max_steps in RLTrainingConfig, its length")
    rollout = cluster.get_rollout_config(mode=Mode.TRAIN)
    _refuse_greedy(cluster.cluster_config.rollout_engine, rollout)
    longest = rollout.max_tokens_to_generate
    if config.overlong_cache is not None and config.overlong_cache > longest:
        raise ValueError(
            f"overlong_cache={config.overlong_cache} is more than max_tokens_to_generate={longest}; take a "
            f"fifth of that, as the paper does (overlong_cache={max(longest // 5, 1)}), or None: no penalty"
        )
    if fields.needed_statistics(config.estimator):
        _refuse_places(config.estimator, cluster)


def _refuse_rewards(estimator: credit.Estimator, columns: int) -> None:
    """Refuses weights and filters that do not fit the number of rewards."""
    name, weigher = estimator.name, traits.find_weigher(estimator)
    if columns > 1 and weigher is None and traits.weighs_rewards(estimator):
        raise ValueError(
            f"{name} takes one reward per response, but one of its parts weighs several (gdpo), and there "
            f"are {columns}; use that estimator alone"
        )
    own = getattr(weigher, "reward_weights", None)
    if own is not None and len(own) != columns:
        raise ValueError(f"{name} has {len(own)} reward_weights for {columns} rewards; give one for each")
    for chosen in traits.find_filters(estimator):
        if isinstance(chosen, int) and chosen >= columns:
            raise ValueError(
                f"filter_by={chosen} of {name} counts the rewards from 0, and there are {columns}; expected "
                f"0..{columns - 1}, or total"
            )


def _refuse_packing(config: Any, training: Any) -> None:
    """Refuses what packed rows, each of which is a micro-batch to Tunix, would change without a word."""
    packed = f"max_seq_token_per_tpu={training.max_seq_token_per_tpu}"
    if config.loss_algo == "gspo-token":
        raise ValueError(
            f"{packed} gives all responses of a packed row one ratio with loss_algo='gspo-token'; leave one "
            "of them out"
        )
    if config.filter_groups and count_micro_batches(training) > 1:
        raise ValueError(
            f"{packed} makes micro-batches of another number than train_micro_batch_size counts on, so that "
            "filtered groups could not leave the loss's normalizer of the optimizer step; leave "
            "train_micro_batch_size out, or max_seq_token_per_tpu"
        )


def _refuse_greedy(engine: Any, rollout: Any) -> None:
    """Refuses greedy sampling, with which nothing is learned: equal completions have advantages of 0."""
    greedy = {
        "top_p=None": engine == "vanilla" and rollout.top_p is None,
        f"temperature={rollout.temperature}": not rollout.temperature,
        "top_k=1": rollout.top_k == 1,
    }
    for option, found in greedy.items():
        if found:
            raise ValueError(
                f"{option} samples greedily in Tunix, so that all completions of a prompt are the same and "
                "their advantages 0; set top_p=1.0 and a temperature in RolloutConfig"
            )


def _refuse_places(estimator: credit.Estimator, cluster: Any) -> None:
    config, name = cluster.cluster_config, estimator.name
    if config.offload_to_cpu:
        raise ValueError(
            f"offload_to_cpu=True keeps the models that {name} runs off the devices; set it to False"
        )
    if jax.process_count() > 1:
        raise ValueError(
            f"{name} needs token statistics, which this adapter computes in one JAX process only, and there "
            f"are {jax.process_count()}; use an estimator that reads rewards alone, such as grpo or dapo"
        )
    if not fields.needs_reference(estimator):
        return
    actor, reference = (config.role_to_mesh.get(role) for role in (Role.ACTOR, Role.REFERENCE))
    if actor != reference:
        raise ValueError(
            f"{name} compares actor and reference token by token, but they lie on different meshes; give "
            "Role.ACTOR and Role.REFERENCE one mesh in role_to_mesh"
        )
    try:
        cluster.inference_worker.get_model("reference")
    except ValueError:
        raise ValueError(
            f"{name} needs a reference model; give RLCluster reference= (with LoRA, the model without it)"
        ) from None


def report_differences(config: Any) -> None:
    """Logs one line if Tunix's loss options, which stay as they are, differ from the paper's."""
    paper = config.estimator.loss
    options = {
        "clip_low": ("epsilon", config.epsilon, paper.clip_low),
        "clip_high": ("epsilon_high", config.epsilon_high, paper.clip_high),
        "dual_clip": ("epsilon_c", config.epsilon_c, paper.dual_clip),
        "kl_coefficient": ("beta", config.beta, paper.kl_coefficient),
        "ratio": ("loss_algo", config.loss_algo, "gspo-token" if paper.ratio == "sequence" else "grpo"),
    }
    aggregation = ("loss_agg_mode", config.loss_agg_mode)
    loss_report.report_loss_differences(FRAMEWORK, config.estimator, options, aggregation)
