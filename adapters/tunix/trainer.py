"""The learner: Tunix's, with advantages [B, T] from an estimator."""

import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from tunix.rl.grpo.grpo_learner import GRPOLearner
from tunix.rl.rl_cluster import Mode

import credit
from credit.adapters.fields import needed_statistics as statistics_of
from credit.adapters.tunix import options, registry, statistics
from credit.adapters.tunix.settings import CreditGRPOConfig


class CreditGRPOLearner(GRPOLearner):
    """GRPOLearner whose advantages come from `algo_config.estimator`; see CreditGRPOConfig.

    Tunix's loss options stay the user's. Batch-wide estimators see the prompts of one rollout, that is
    rollout_micro_batch_size of RLTrainingConfig. Tunix's metric_fns get NaN for advantages, which are
    per token here.
    """

    def __init__(
        self, rl_cluster: Any, algo_config: CreditGRPOConfig, reward_fns: Any, *positional: Any, **named: Any
    ) -> None:
        if not isinstance(algo_config, CreditGRPOConfig):
            raise ValueError(f"algo_config is a {type(algo_config).__name__}; expected a CreditGRPOConfig")
        options.refuse(algo_config, rl_cluster, reward_fns)
        super().__init__(rl_cluster, algo_config, reward_fns, *positional, **named)
        options.report_differences(algo_config)
        self._synchronised: tuple[int, int] | None = None

    def _generate_and_compute_advantage(self, training_input: Any, mode: Mode = Mode.TRAIN) -> Any:
        sampler = self._sampling_step()
        with registry.receive_rewards() as rewards:
            example = super()._generate_and_compute_advantage(training_input, mode)
        rollouts, metrics = self._rollouts(example, rewards[-1])
        self._refuse_moved(sampler)
        estimator = self.algo_config.estimator
        shaped = rollouts._replace(rewards=rollouts.rewards + self._penalty(rollouts.mask, metrics))
        result = estimator(shaped)
        self._log({**metrics, **result.metrics}, mode)
        kept = example.completion_mask
        if self.algo_config.filter_groups:
            kept = kept & estimator.keep(rollouts)[:, None]
        advantages = jnp.asarray(result.advantages, jnp.float32)
        return example.replace(advantages=advantages, completion_mask=kept)

    def _rollouts(self, example: Any, rewards: np.ndarray) -> tuple[credit.Rollouts, dict[str, Any]]:
        """The rollouts on the host, in Tunix's order (groups are contiguous), and what they cost."""
        needs, metrics = self.algo_config.estimator.required_fields, {}
        fields: dict[str, Any] = {}
        scored = statistics_of(self.algo_config.estimator)
        if scored:
            started = time.perf_counter()
            temperature = self.algo_config.temperature  # Tunix's loss takes it for all modes
            found = statistics.compute_statistics(self.rl_cluster, example, scored, temperature)
            fields = {name: np.asarray(getattr(found, name)) for name in scored}
            metrics["statistics_seconds"] = time.perf_counter() - started
        if "progress" in needs:
            most = self.rl_cluster.cluster_config.training_config.max_steps
            fields["progress"] = np.asarray(self.rl_cluster.actor_trainer.train_steps / most)
        groups = np.arange(len(rewards)) // self.algo_config.num_generations
        mask = np.asarray(example.completion_mask)
        return credit.Rollouts(rewards, groups, mask, **fields), metrics

    def _penalty(self, mask: np.ndarray, metrics: dict[str, Any]) -> np.ndarray | float:
        """DAPO's overlong penalty [B], of the completions' lengths in tokens."""
        if self.algo_config.overlong_cache is None:
            return 0.0
        longest = self.rl_cluster.get_rollout_config(mode=Mode.TRAIN).max_tokens_to_generate
        lengths = mask.sum(axis=1).astype(np.float64)
        penalty = credit.overlong_penalty(lengths, longest, self.algo_config.overlong_cache)
        penalty = self.algo_config.overlong_penalty * penalty
        metrics["overlong_penalty_mean"] = penalty.mean()
        return penalty

    def _sampling_step(self) -> int:
        """The number of updates in the weights that sample now."""
        updates = self.rl_cluster.actor_trainer.train_steps
        if not self.should_sync_weights:
            return updates
        # The sampler has its own weights, and gets the actor's whenever global_steps is counted up.
        if self._synchronised is None or self._synchronised[0] != self.rl_cluster.global_steps:
            self._synchronised = self.rl_cluster.global_steps, updates
        return self._synchronised[1]

    def _refuse_moved(self, sampler: int) -> None:
        updates = self.rl_cluster.actor_trainer.train_steps
        if statistics_of(self.algo_config.estimator) and updates != sampler:
            raise ValueError(
                f"the completions were sampled {updates - sampler} updates ago by weights that are no longer "
                f"at hand, so {self.algo_config.estimator.name} cannot score them; give Role.ROLLOUT the "
                "actor's mesh and rollout_engine='vanilla', or set mini_batch_size to the data's batch size"
            )

    def _log(self, metrics: dict[str, Any], mode: Mode) -> None:
        """Buffers the metrics as credit/...; Tunix combines those of a step's rollouts."""
        extremes = {"_min": np.min, "_max": np.max}
        self.rl_cluster.buffer_metrics(
            {
                f"credit/{name}": (float(value), extremes.get(name[-4:], np.mean))
                for name, value in metrics.items()
            },
            mode=mode,
        )
