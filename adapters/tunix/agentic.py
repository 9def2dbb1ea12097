"""The learner of agents: Tunix's agentic one, with advantages [B, T] from an estimator."""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
from tunix.rl import utils
from tunix.rl.agentic.agentic_grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.agentic.environments.task_environment import TaskEnvironment
from tunix.rl.rl_cluster import Mode

from credit.adapters.fields import needed_statistics
from credit.adapters.readings import NAME, find_shared_reading
from credit.adapters.tunix import agentic_options, extra, options, rewards, steps, trajectories
from credit.adapters.tunix.rollouts import Given, assign_credit
from credit.adapters.tunix.settings import CreditSettings
from credit.adapters.tunix.trainer import name_metrics, start_learner

LOGGED = f"let a reward function give them by log_extra({NAME!r}, rows)"
_START = inspect.signature(GRPOLearner.__init__)


@dataclass(kw_only=True)
class CreditAgenticGRPOConfig(CreditSettings, GRPOConfig):
    """The agentic GRPOConfig with an estimator and its settings, for CreditAgenticGRPOLearner.

    An unknown name or a wrong setting raises ValueError here, before any model is loaded.
    """


class CreditAgenticGRPOLearner(GRPOLearner):
    """The agentic GRPOLearner whose advantages come from `algo_config.estimator`.

    Tunix hands it one group at a time, or with compute_logps_micro_batch_size those of a micro-batch. Its
    own metrics rewards/advantage/* are NaN, and so are the advantages that its metric_fns get: advantages
    have one value per token here.
    """

    def __init__(
        self,
        rl_cluster: Any,
        algo_config: CreditAgenticGRPOConfig,
        reward_fns: Any = None,
        *positional: Any,
        **named: Any,
    ) -> None:
        if not isinstance(algo_config, CreditAgenticGRPOConfig):
            kind = type(algo_config).__name__
            raise ValueError(f"algo_config is a {kind}; expected a CreditAgenticGRPOConfig")
        given = _START.bind(self, rl_cluster, algo_config, reward_fns, *positional, **named).arguments
        functions = len(rewards.list_functions(reward_fns))
        self._env_rewards = not functions or rewards_itself(given.get("env_class"), given.get("env_kwargs"))
        options.refuse(algo_config, rl_cluster, functions + self._env_rewards)
        agentic_options.refuse(algo_config, rl_cluster)
        super().__init__(rl_cluster, algo_config, rewards.wrap_functions(reward_fns), *positional, **named)
        start_learner(self)

    def _build_orchestrator(self) -> Any:
        orchestrator = super()._build_orchestrator()
        orchestrator.engine_cls = trajectories.StepCollectEngine
        return orchestrator

    def _process_results(
        self, trajectories: list[Any], mode: Mode = Mode.TRAIN, expected_step: int | None = None
    ) -> list[Any]:
        config = self.algo_config
        agentic_options.refuse_moving_weights(self, mode)
        with rewards.receive_rewards() as received, extra.collect_logged() as logged:
            (example,) = super()._process_results(trajectories, mode, expected_step)
        given = self._collect_given(example, trajectories, received, logged)
        actor = sampling_weights(self) if needed_statistics(config.estimator) else None
        example, metrics = assign_credit(self.rl_cluster, config, example, given, actor)
        if config.degenerate_group_masking:
            example = mask_degenerate(example, given.groups)
        step = 0 if expected_step is None else expected_step
        self.rl_cluster.buffer_metrics_async(name_metrics(metrics), mode=mode, step=step)
        return [example]

    def _collect_given(
        self, example: Any, group: list[Any], received: rewards.Received, logged: dict[str, Any]
    ) -> Given:
        """What Tunix's trajectories hold beside the example that it makes of them."""
        estimator, mask = self.algo_config.estimator, np.asarray(example.completion_mask) > 0
        each = trajectories.list_steps(group)
        earned = np.array([item.traj["trajectory_reward"] or 0.0 for item in group], np.float64)
        totals = np.asarray(received.totals, np.float64)
        columns = received.stack_columns([earned] if self._env_rewards else [])
        known = {"turns": trajectories.number_turns(each, mask.shape[1])}
        if NAME in estimator.required_fields and NAME not in logged:
            reading = find_shared_reading(estimator, "the steps of an agent are rewarded one by one", LOGGED)
            own = np.nansum(received.stack_columns(), axis=1) if received.functions else None
            known[NAME], totals = trajectories.split_rewards(reading, each, mask, own)
        data = utils.merge_micro_batches([item.traj["original_input"] for item in group])
        return Given(
            totals=totals,
            columns=columns,
            groups=np.arange(len(group)) // self.algo_config.num_generations,
            chosen=np.array([any(step.chosen for step in steps) for steps in each]),
            arrays=extra.stack_arrays(estimator, data, logged, example, known),
        )

    def _data_consumer_batch_generator(self, queue: Any, batch_size: int) -> Any:
        batches = super()._data_consumer_batch_generator(queue, batch_size)
        masks = self.algo_config.filter_groups or self.algo_config.degenerate_group_masking
        return steps.share_steps(self, batches) if masks else batches


def rewards_itself(env_class: Any, env_kwargs: Any) -> bool:
    """Whether the environment gives rewards: Tunix's own does with a reward_fn alone."""
    plain = env_class is None or env_class is TaskEnvironment
    return not plain or "reward_fn" in (env_kwargs or {})


def sampling_weights(learner: Any) -> Any:
    """The state of the actor that samples, where that is not the trainer's: what it was last given of it."""
    cluster = learner.rl_cluster
    if not learner.should_sync_weights:
        return None
    anchor = cluster._anchor_policy_state
    return utils.put_params_on_memory_kind(anchor, cluster._default_memory_kind)


def mask_degenerate(example: Any, groups: np.ndarray) -> Any:
    """Tunix's degenerate_group_masking: groups whose advantages are all 0 leave the loss."""
    nothing = np.isclose(np.asarray(example.advantages), 0.0).all(axis=1)
    lost = np.array([nothing[groups == group].all() for group in groups])
    return example.replace(completion_mask=example.completion_mask & ~lost[:, None])
