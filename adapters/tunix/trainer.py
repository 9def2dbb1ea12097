"""The learner: Tunix's, with advantages [B, T] from an estimator."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tunix.rl.grpo.grpo_learner import GRPOLearner
from tunix.rl.rl_cluster import Mode

from credit.adapters.estimator_report import report_estimator
from credit.adapters.fields import needed_statistics
from credit.adapters.tunix import extra, options, registry, rollouts
from credit.adapters.tunix.hooks import FRAMEWORK
from credit.adapters.tunix.settings import CreditGRPOConfig
from credit.fields import replace_arrays


class CreditGRPOLearner(GRPOLearner):
    """GRPOLearner whose advantages come from `algo_config.estimator`; see CreditGRPOConfig.

    Tunix's loss options stay the user's. Estimators that compare the whole batch see the prompts of one
    rollout, that is rollout_micro_batch_size of RLTrainingConfig. Tunix's metric_fns get NaN for
    advantages, which have one value per token here.
    """

    def __init__(
        self, rl_cluster: Any, algo_config: CreditGRPOConfig, reward_fns: Any, *positional: Any, **named: Any
    ) -> None:
        if not isinstance(algo_config, CreditGRPOConfig):
            raise ValueError(f"algo_config is a {type(algo_config).__name__}; expected a CreditGRPOConfig")
        options.refuse(algo_config, rl_cluster, reward_fns)
        super().__init__(rl_cluster, algo_config, reward_fns, *positional, **named)
        if jax.process_index() == 0:
            report_estimator(FRAMEWORK, algo_config.estimator, source="from the models' logits")
            options.report_differences(algo_config)
        # global_steps when the sampler last got weights, and the updates that these had
        self._synchronized: tuple[int, int] | None = None

    def _generate_and_compute_advantage(self, training_input: Any, mode: Mode = Mode.TRAIN) -> Any:
        config, cluster = self.algo_config, self.rl_cluster
        sampled_at = self._count_sampler_updates()
        with registry.receive_rewards() as rewards, extra.collect_logged() as logged:
            example = super()._generate_and_compute_advantage(training_input, mode)
        given, metrics = rollouts.make_rollouts(cluster, config, example, rewards[-1])
        own = extra.stack_arrays(config.estimator, training_input, logged, example)
        given = replace_arrays(given, own)
        self._refuse_outdated_sampler(sampled_at)
        shaped = given
        if config.overlong_cache is not None:
            penalty = rollouts.overlong_penalty(cluster, config, config.overlong_cache, given.mask)
            metrics["overlong_penalty_mean"] = penalty.mean()
            shaped = given._replace(rewards=given.rewards + penalty)
        result = config.estimator(shaped)
        self._log_credit({**metrics, **result.metrics}, mode)
        kept = example.completion_mask
        if config.filter_groups:
            kept = kept & config.estimator.keep(given)[:, None]
        advantages = jnp.asarray(result.advantages, jnp.float32)
        return example.replace(advantages=advantages, completion_mask=kept)

    def _count_sampler_updates(self) -> int:
        """The number of updates that the sampler's weights have had."""
        updates = self.rl_cluster.actor_trainer.train_steps
        if not self.should_sync_weights:
            return updates
        # The sampler has weights of its own and gets the actor's whenever global_steps increases.
        if self._synchronized is None or self._synchronized[0] != self.rl_cluster.global_steps:
            self._synchronized = self.rl_cluster.global_steps, updates
        return self._synchronized[1]

    def _refuse_outdated_sampler(self, sampled_at: int) -> None:
        updates = self.rl_cluster.actor_trainer.train_steps
        if needed_statistics(self.algo_config.estimator) and updates != sampled_at:
            raise ValueError(
                f"the completions were sampled {updates - sampled_at} updates ago by weights that no longer "
                f"exist, so {self.algo_config.estimator.name} cannot score them; give Role.ROLLOUT the "
                "actor's mesh and rollout_engine='vanilla', or set mini_batch_size to the data's batch size"
            )

    def _log_credit(self, metrics: dict[str, Any], mode: Mode) -> None:
        """Buffers the metrics as credit/<name>; Tunix combines those of a step by mean, min or max."""
        extremes = {"_min": np.min, "_max": np.max}
        self.rl_cluster.buffer_metrics(
            {
                f"credit/{name}": (float(value), extremes.get(name[-4:], np.mean))
                for name, value in metrics.items()
            },
            mode=mode,
        )
