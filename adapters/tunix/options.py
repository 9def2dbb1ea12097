"""Tunix's options beside an estimator: what cannot work with it, and what differs from its paper."""

import logging
from typing import Any

import jax
from tunix.rl.rl_cluster import Mode, Role

import credit
from credit.adapters import fields, loss_report, traits
from credit.adapters.tunix.settings import CreditGRPOConfig

logger = logging.getLogger(__name__)

PROVIDED = (*fields.STATISTICS, "progress")

_AGGREGATIONS = {
    "token-mean": "token_mean",
    "sequence-mean-token-mean": "sequence_mean",
    "seq-mean-token-sum": "sequence_sum",
    "sequence-mean-token-sum-norm": "sequence_sum",
    "sequence-mean-token-scale": "fixed_horizon",
}


def refuse(config: CreditGRPOConfig, cluster: Any, reward_fns: Any) -> None:
    """A ValueError for what cannot work with this estimator on this cluster."""
    name, needs = config.estimator.name, config.estimator.required_fields
    missing = [field for field in needs if field not in PROVIDED]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}, which Tunix does not provide")
    if traits.weighs_rewards(config.estimator) and not callable(reward_fns) and len(reward_fns) > 1:
        raise ValueError(
            f"{name} weighs several rewards, and Tunix hands over the sum of its {len(reward_fns)} "
            "reward_fns; take another estimator, such as reinforce_plus_plus_baseline"
        )
    if "progress" in needs and not cluster.cluster_config.training_config.max_steps:
        raise ValueError(f"{name} has a schedule; set max_steps in RLTrainingConfig, over which it runs")
    rollout = cluster.get_rollout_config(mode=Mode.TRAIN)
    _refuse_greedy(cluster.cluster_config.rollout_engine, rollout)
    longest = rollout.max_tokens_to_generate
    if config.overlong_cache is not None and config.overlong_cache > longest:
        raise ValueError(
            f"overlong_cache={config.overlong_cache} is more than max_tokens_to_generate={longest}; the "
            f"paper takes a fifth of it (overlong_cache={max(longest // 5, 1)}), None is no penalty"
        )
    if fields.needed_statistics(config.estimator):
        _refuse_places(config.estimator, cluster)


def _refuse_greedy(engine: Any, rollout: Any) -> None:
    """Identical completions have advantages of 0: nothing would be learned, and nothing said of it."""
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
            f"offload_to_cpu=True keeps the models that {name} looks at off the devices; set it to False"
        )
    if jax.process_count() > 1:
        raise ValueError(
            f"{name} needs statistics of every token, which this adapter computes in one JAX process only"
        )
    if not fields.needs_reference(estimator):
        return
    actor, reference = (config.role_to_mesh.get(role) for role in (Role.ACTOR, Role.REFERENCE))
    if actor != reference:
        raise ValueError(
            f"{name} compares actor and reference token by token, which lie on different meshes; give "
            "Role.ACTOR and Role.REFERENCE one mesh in role_to_mesh"
        )
    try:
        cluster.inference_worker.get_model("reference")
    except ValueError:
        raise ValueError(
            f"{name} needs a reference model; give RLCluster reference= (with LoRA, the model without it)"
        ) from None


def report_differences(config: CreditGRPOConfig) -> None:
    """Logs one line where Tunix's loss options, which stay as they are, differ from the paper's."""
    paper = config.estimator.loss
    pairs = {
        "epsilon": (config.epsilon, paper.clip_low),
        "epsilon_high": (config.epsilon_high, paper.clip_high),
        "epsilon_c": (config.epsilon_c, paper.dual_clip),
        "beta": (config.beta, paper.kl_coefficient),
        "loss_algo": (config.loss_algo, "gspo-token" if paper.ratio == "sequence" else "grpo"),
    }
    aggregation = ("loss_agg_mode", config.loss_agg_mode)
    loss_report.report_loss_differences(
        logger, "Tunix", config.estimator.name, paper, pairs, aggregation, _AGGREGATIONS
    )
