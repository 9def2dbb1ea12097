"""From Tunix's generated batch to the rollouts that an estimator takes, and back to what Tunix trains on."""

import time
from typing import Any, NamedTuple

import numpy as np
from tunix.rl.rl_cluster import Mode

import credit
from credit.adapters import traits
from credit.adapters.fields import add_logged, measure_logged, needed_statistics
from credit.adapters.readings import NAME
from credit.adapters.tunix import rewards, statistics
from credit.adapters.tunix.examples import CreditExample, make_example
from credit.fields import replace_arrays
from credit.several_rewards import find_scored_rows


class Given(NamedTuple):
    """What a learner knows of a batch beside Tunix's example; B rows."""

    totals: np.ndarray
    """[B], the rewards as Tunix combines them."""
    columns: np.ndarray
    """[B, K], those of each function."""
    groups: np.ndarray
    chosen: np.ndarray
    """[B], bool: whether the policy chose any token."""
    arrays: dict[str, Any]
    """Arrays [B, ...] by name that are no statistics."""


def assign_credit(
    cluster: Any, config: Any, example: Any, given: Given, actor: Any = None
) -> tuple[CreditExample, dict[str, Any]]:
    """The example with the advantages of the config's estimator, and the metrics.

    Rows without a reward, and groups that the estimator does not keep, leave the loss.

    Args:
        actor: the state of the actor that sampled; None: what the trainer has.
    """
    estimator = config.estimator
    rollouts, metrics = make_rollouts(cluster, config, example, given, actor)
    shaped = rollouts
    if config.overlong_cache is not None:
        penalty = overlong_penalty(cluster, config, rollouts.mask)
        metrics["overlong_penalty_mean"] = penalty.mean()
        estimator, shaped = add_penalty(estimator, rollouts, penalty)
    result = estimator(shaped)
    kept = rollouts.mask & find_scored_rows(rollouts.rewards)[:, None]
    if config.filter_groups:
        # The functions' rewards, of which filter_by names one.
        absent = ~find_scored_rows(rollouts.rewards)[:, None]
        apart = rollouts._replace(rewards=np.where(absent, np.nan, given.columns))
        kept &= np.asarray(config.estimator.keep(apart))[:, None]
    packed = cluster.cluster_config.training_config.max_seq_token_per_tpu is not None
    return make_example(example, result.advantages, kept, packed), metrics | dict(result.metrics)


def make_rollouts(
    cluster: Any, config: Any, example: Any, given: Given, actor: Any = None
) -> tuple[credit.Rollouts, dict[str, Any]]:
    """Rollouts on the host, in Tunix's order, and metrics of how they were made."""
    estimator, mask = config.estimator, np.asarray(example.completion_mask) > 0
    chosen = given.chosen
    if NAME in given.arrays:  # one that is not finite says as little of its row as a reward
        chosen = chosen & np.isfinite(given.arrays[NAME]).all(axis=1)
    combined = rewards.combine_rewards(estimator, given.totals, given.columns, chosen)
    fields, metrics = dict(given.arrays), dict[str, Any]()
    needed = needed_statistics(estimator)
    if needed:
        started = time.perf_counter()
        # Tunix's loss uses this temperature in all modes.
        names = add_logged(needed)
        found = statistics.compute_statistics(cluster, example, names, config.temperature, actor)
        found = {name: np.asarray(array) for name, array in found.items()}
        fields |= {name: found[name] for name in needed}
        metrics["statistics_seconds"] = time.perf_counter() - started
        metrics |= measure_logged(found, mask & find_scored_rows(combined)[:, None])
    if "progress" in estimator.required_fields:
        last = cluster.cluster_config.training_config.max_steps
        fields["progress"] = np.asarray(min(cluster.actor_trainer.train_steps / last, 1.0))
    return replace_arrays(credit.Rollouts(combined, given.groups, mask), fields), metrics


def overlong_penalty(cluster: Any, config: Any, mask: np.ndarray) -> np.ndarray:
    """DAPO's penalty [B] for the policy's tokens, which grows over the last `overlong_cache` of them."""
    lengths = mask.sum(axis=1).astype(np.float64)
    longest = cluster.get_rollout_config(mode=Mode.TRAIN).max_tokens_to_generate
    found = credit.overlong_penalty(lengths, longest, config.overlong_cache)
    return config.overlong_penalty * np.asarray(found)


def add_penalty(
    estimator: credit.Estimator, rollouts: credit.Rollouts, penalty: np.ndarray
) -> tuple[credit.Estimator, credit.Rollouts]:
    """Adds the penalty to the reward; an estimator that weighs several gets it as one more, of weight 1."""
    combined = rollouts.rewards
    if not traits.weighs_rewards(estimator):
        return estimator, rollouts._replace(rewards=combined + penalty)
    own = getattr(traits.find_weigher(estimator), "reward_weights", None)
    if own is not None:
        estimator = traits.set_reward_weights(estimator, [*own, 1.0])
    penalty = np.where(find_scored_rows(combined), penalty, np.nan)
    return estimator, rollouts._replace(rewards=np.column_stack([combined, penalty]))
