"""slime as this adapter knows it: the supported releases, its options, and the functions that it calls."""

from credit.adapters.fields import STATISTICS
from credit.adapters.framework import Framework
from credit.adapters.hooks import FunctionTable

FRAMEWORK = Framework(
    name="slime",
    distribution="slime",
    supported=">=0.3.1,<0.4",
    provides=(
        *STATISTICS,
        *("rollout_log_probs", "turns", "progress", "extra.token_ids", "extra.teacher_log_probs"),
    ),
    extra="",  # slime hands on a fixed list of fields
    group_size="--n-samples-per-prompt",
    rollout_log_probs="the rollout_log_probs of each Sample, as slime's own rollout functions do",
    aggregations={"the mean over rollouts": "sequence_mean", "--calculate-per-token-loss": "token_mean"},
)

# The options that the adapter reads, as slime's parser names them.
OPTIONS = (
    "advantage_estimator allgather_cp calculate_per_token_loss compute_advantages_and_returns "
    "context_parallel_size custom_advantage_function_path custom_megatron_before_log_prob_hook_path "
    "custom_reward_post_process_path dynamic_sampling_filter_path eps_clip eps_clip_c eps_clip_high "
    "get_mismatch_metrics global_batch_size hf_checkpoint keep_old_actor kl_coef kl_loss_coef loss_type "
    "n_samples_per_prompt normalize_advantages num_rollout opd_kl_coef padded_vocab_size ref_load "
    "release_train rewards_normalization rollout_batch_size rollout_temperature rollout_top_p save "
    "start_rollout_id tis_clip use_critic use_kl_loss use_opd use_rollout_entropy use_rollout_logprobs "
    "use_rollout_routing_replay use_routing_replay use_tis vocab_size"
)

# Of the processes that train.
FUNCTIONS: FunctionTable = {
    "slime.backends.megatron_utils.loss": {"compute_advantages_and_returns": "args rollout_data"},
    "slime.backends.megatron_utils.model": {
        "forward_only": "f args model data_iterator num_microbatches store_prefix use_rollout_top_p_replay"
    },
    "slime.backends.megatron_utils.cp_utils": {
        "all_gather_with_cp": "tensor total_length response_length",
        "slice_log_prob_with_cp": "log_prob total_length response_length",
    },
}

# Of the process that samples.
OF_ROLLOUTS: FunctionTable = {
    "slime.rollout.filter_hub.base_types:DynamicFilterOutput": "keep reason",
}
