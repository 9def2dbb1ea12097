"""Tunix as this adapter knows it: the supported releases and the functions that it overrides or calls."""

from credit.adapters.fields import STATISTICS
from credit.adapters.framework import Framework

FRAMEWORK = Framework(
    name="Tunix",
    distribution="google-tunix",
    supported=">=0.1.7,<0.2",
    provides=(*STATISTICS, "progress", "turns", "extra.token_ids"),
    given=("token_rewards",),
    extra="credit.adapters.tunix.log_extra, which a reward function calls, or a column of the data",
    group_size="num_generations",
    several_rewards=True,
    aggregations={
        "token-mean": "token_mean",
        "sequence-mean-token-mean": "sequence_mean",
        "seq-mean-token-sum": "sequence_sum",
        "sequence-mean-token-sum-norm": "sequence_sum",
        "sequence-mean-token-scale": "fixed_horizon",
    },
)

# Compared although the release is, since Tunix's main branch moves faster than its version.
FUNCTIONS = {
    "tunix.rl.grpo.grpo_learner:GRPOLearner": {
        "_generate_and_compute_advantage": "self training_input mode",
    },
    "tunix.rl.rl_learner:RLLearner": {
        "_prepare_data": "self iterator proceed_num_steps sample_repeat batch_repeat "
        "service_target_batch_size data_queue async_loading mode",
    },
    "tunix.rl.agentic.agentic_grpo_learner:GRPOLearner": {
        "_process_results": "self trajectories mode expected_step",
        "_build_orchestrator": "self",
        "_data_consumer_batch_generator": "self queue batch_size",
    },
    "tunix.rl.agentic.trajectory.trajectory_collect_engine:TrajectoryCollectEngine": {"collect": "self mode"},
    "tunix.rl.utils": {"put_params_on_memory_kind": "params memory_kind", "merge_micro_batches": "batches"},
    "tunix.sft.peft_trainer:PeftTrainer": {"with_loss_fn": "self loss_fn has_aux"},
    "tunix.rl.function_registry": {
        "register_advantage_estimator": "name",
        "get_policy_loss_fn": "name",
    },
    "tunix.rl.common": {
        "process_ids": "prompt_tokens completion_tokens pad_id eos_id segment_ids segment_positions",
    },
}
