"""From Tunix's generated batch to the rollouts that an estimator takes."""

import time
from typing import Any

import numpy as np
from tunix.rl.rl_cluster import Mode

import credit
from credit.adapters.fields import add_logged, measure_logged, needed_statistics
from credit.adapters.tunix import statistics
from credit.adapters.tunix.settings import CreditGRPOConfig
from credit.fields import replace_arrays


def make_rollouts(
    cluster: Any, config: CreditGRPOConfig, example: Any, rewards: np.ndarray
) -> tuple[credit.Rollouts, dict[str, Any]]:
    """Rollouts on the host, in Tunix's order with contiguous groups, and metrics of how they were made."""
    fields, metrics = dict[str, Any](), dict[str, Any]()
    needed = needed_statistics(config.estimator)
    if needed:
        started = time.perf_counter()
        # Tunix's loss uses this temperature in all modes.
        names = add_logged(needed)
        found = statistics.compute_statistics(cluster, example, names, config.temperature)
        found = {name: np.asarray(array) for name, array in found.items()}
        fields = {name: found[name] for name in needed}
        metrics["statistics_seconds"] = time.perf_counter() - started
        seen = np.asarray(example.completion_mask) & np.isfinite(rewards)[:, None]
        metrics |= measure_logged(found, seen)
    if "progress" in config.estimator.required_fields:
        last = cluster.cluster_config.training_config.max_steps
        fields["progress"] = np.asarray(cluster.actor_trainer.train_steps / last)
    groups = np.arange(len(rewards)) // config.num_generations
    mask = np.asarray(example.completion_mask)
    return replace_arrays(credit.Rollouts(rewards, groups, mask), fields), metrics


def overlong_penalty(
    cluster: Any, config: CreditGRPOConfig, cache_length: int, mask: np.ndarray
) -> np.ndarray:
    """DAPO's penalty [B] for the completions' lengths, which grows over the last `cache_length` tokens."""
    lengths = mask.sum(axis=1).astype(np.float64)
    longest = cluster.get_rollout_config(mode=Mode.TRAIN).max_tokens_to_generate
    return config.overlong_penalty * credit.overlong_penalty(lengths, longest, cache_length)
