"""The learner: Tunix's, with advantages [B, T] from an estimator."""

from typing import Any

import jax
import numpy as np
from tunix.rl.grpo.grpo_learner import GRPOLearner
from tunix.rl.rl_cluster import Mode

from credit.adapters.estimator_report import report_estimator
from credit.adapters.fields import needed_statistics
from credit.adapters.tunix import extra, options, rewards, steps
from credit.adapters.tunix.hooks import FRAMEWORK
from credit.adapters.tunix.loss import make_loss
from credit.adapters.tunix.rollouts import Given, assign_credit
from credit.adapters.tunix.settings import CreditGRPOConfig


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
        options.refuse(algo_config, rl_cluster, len(rewards.list_functions(reward_fns)))
        wrapped = rewards.wrap_functions(reward_fns)
        super().__init__(rl_cluster, algo_config, wrapped, *positional, **named)
        start_learner(self)
        # global_steps when the sampler last got weights, and the updates that these had
        self._synchronized: tuple[int, int] | None = None

    def _generate_and_compute_advantage(self, training_input: Any, mode: Mode = Mode.TRAIN) -> Any:
        config = self.algo_config
        sampled_at = self._count_sampler_updates()
        with rewards.receive_rewards() as received, extra.collect_logged() as logged:
            example = super()._generate_and_compute_advantage(training_input, mode)
        mask = np.asarray(example.completion_mask)
        given = Given(
            totals=np.asarray(received.totals),
            columns=received.stack_columns(),
            groups=np.arange(len(mask)) // config.num_generations,
            chosen=np.asarray(mask.any(axis=1)),
            # A completion is one turn, though sampled padding makes holes in its mask.
            arrays=extra.stack_arrays(
                config.estimator, training_input, logged, example, {"turns": np.zeros(mask.shape, np.int64)}
            ),
        )
        example, metrics = assign_credit(self.rl_cluster, config, example, given)
        self._refuse_outdated_sampler(sampled_at)
        self.rl_cluster.buffer_metrics(name_metrics(metrics), mode=mode)
        return example

    def _prepare_data(self, *positional: Any, data_queue: Any, mode: Mode = Mode.TRAIN, **named: Any) -> None:
        # Without a sampler of its own, Tunix trains no micro-batch before all of its step are there anyway.
        if mode == Mode.TRAIN and (self.algo_config.filter_groups or not named["async_loading"]):
            data_queue = steps.hold_steps(self, data_queue)
        super()._prepare_data(*positional, data_queue=data_queue, mode=mode, **named)

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


def start_learner(learner: Any) -> None:
    """What a learner does once Tunix's own has been made: its loss, and what it says of itself."""
    learner.rl_cluster.actor_trainer.with_loss_fn(make_loss(learner), has_aux=True)
    if jax.process_index() == 0:
        report_estimator(FRAMEWORK, learner.algo_config.estimator, source="from the models' logits")
        options.report_differences(learner.algo_config)


def name_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics as credit/<name>, each with how Tunix combines those of a step: by mean, min or max."""
    extremes = {"_min": np.min, "_max": np.max}
    return {
        f"credit/{name}": (float(value), extremes.get(name[-4:], np.mean)) for name, value in metrics.items()
    }
