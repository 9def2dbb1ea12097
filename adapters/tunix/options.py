"""Tunix's options beside an estimator: what cannot work with it, and what differs from its paper."""

from typing import Any

import jax
from tunix.rl.rl_cluster import Mode, Role

import credit
from credit.adapters import fields, loss_report, rules
from credit.adapters.tunix.hooks import FRAMEWORK
from credit.adapters.tunix.settings import CreditGRPOConfig


def refuse(config: CreditGRPOConfig, cluster: Any, reward_fns: Any) -> None:
    """Raises ValueError for options that cannot work with this estimator on this cluster."""
    name, needs = config.estimator.name, config.estimator.required_fields
    rules.refuse_missing_fields(FRAMEWORK, config.estimator)
    if not callable(reward_fns) and len(reward_fns) > 1:
        passed_on = f"the sum of its {len(reward_fns)} reward_fns"
        rules.refuse_several_rewards(FRAMEWORK, config.estimator, passed_on)
    rules.refuse_filter_by(FRAMEWORK, config.estimator, "which passes on the sum of rewards", "leave it out")
    if "progress" in needs and not cluster.cluster_config.training_config.max_steps:
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


def report_differences(config: CreditGRPOConfig) -> None:
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
