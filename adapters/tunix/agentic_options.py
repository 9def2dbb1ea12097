"""Options of Tunix's agentic learner that cannot work with an estimator."""

from typing import Any

from tunix.rl.rl_cluster import Mode

import credit
from credit.adapters import fields, traits
from credit.adapters.tunix.groups import compares_groups
from credit.adapters.tunix.steps import count_micro_batches
from credit.estimators.token_rewards import TokenRewarded


def refuse(config: Any, cluster: Any, functions: int) -> None:
    """Raises ValueError for options that cannot work with this estimator and this many reward functions."""
    name, training = config.estimator.name, cluster.cluster_config.training_config
    together = (training.compute_logps_micro_batch_size or 1) > 1
    if training.max_seq_token_per_tpu is not None:
        raise ValueError(
            f"max_seq_token_per_tpu={training.max_seq_token_per_tpu} packs as many tokens of a response as "
            "the agent chose, from the first on, which with the environment's between them are others; "
            "leave it out"
        )
    if compares_groups(config.estimator) and not together:
        raise ValueError(
            f"{name} compares the groups of a batch, but Tunix's agentic learner passes on one group at a "
            "time; set compute_logps_micro_batch_size and train_micro_batch_size to the prompts that it "
            "shall compare"
        )
    if config.filter_groups and together and count_micro_batches(training) > 1:
        raise ValueError(
            f"compute_logps_micro_batch_size={training.compute_logps_micro_batch_size} scores each "
            "micro-batch when the one before it has been trained on, so that filtered groups could not leave "
            "the normalizer of the step; leave it out, or set train_micro_batch_size to mini_batch_size"
        )
    if config.num_iterations > 1 and not together and fields.needed_statistics(config.estimator):
        raise ValueError(
            f"num_iterations={config.num_iterations} changes the weights while the next batch is sampled, so "
            f"{name} cannot score it; set compute_logps_micro_batch_size and train_micro_batch_size to the "
            "prompts of a micro-batch, at least 2, which are then sampled first"
        )
    if config.off_policy_steps and fields.needed_statistics(config.estimator):
        raise ValueError(
            f"off_policy_steps={config.off_policy_steps} trains on completions of weights that no longer "
            f"exist, so {name} cannot score them; set it to 0, or use an estimator that reads rewards alone"
        )
    _refuse_double_rewards(config.estimator, functions)


def _refuse_double_rewards(estimator: credit.Estimator, functions: int) -> None:
    """Refuses the sum of the environment's rewards beside each of them."""
    for part in traits.list_parts(estimator):
        each = part.estimator
        if isinstance(each, TokenRewarded) and each.rewards_from == "both" and not functions:
            raise ValueError(
                f"rewards_from=both of {each.name} adds the environment's rewards to their own sum, since "
                "there are no reward_fns; set rewards_from=tokens"
            )


def refuse_moving_weights(learner: Any, mode: Mode) -> None:
    """Raises ValueError if a sampler that shares the trainer's weights sampled while these were trained."""
    estimator = learner.algo_config.estimator
    size = learner.rl_cluster.cluster_config.training_config.mini_batch_size
    whole = learner._full_batch_size
    moving = mode == Mode.TRAIN and not learner.should_sync_weights and size and size < whole
    if moving and fields.needed_statistics(estimator):
        raise ValueError(
            f"mini_batch_size={size} trains on a part of the {whole} prompts of a batch while the sampler, "
            f"which shares the weights, is at the others, so {estimator.name} cannot score them; set it to "
            f"{whole}, or give Role.ROLLOUT a model of its own"
        )
