"""ms-swift as this adapter knows it: the supported releases and the functions that it overrides or calls."""

from credit.adapters.fields import STATISTICS
from credit.adapters.framework import Framework
from credit.adapters.hooks import FunctionTable

FRAMEWORK = Framework(
    name="ms-swift",
    distribution="ms-swift",
    supported=">=4.6,<4.7",
    provides=(*STATISTICS, "rollout_log_probs", "turns", "progress", "extra.token_ids"),
    given=("token_rewards",),
    extra="a column of the data set, or the rollout_infos that a multi-turn scheduler returns",
    group_size="--num_generations",
    several_rewards=True,
    rollout_log_probs="--use_vllm true, which returns them with the samples",
    aggregations={
        "grpo": "sequence_mean",
        "bnpo": "token_mean",
        "dapo": "token_mean",
        "fipo": "token_mean",
        "dr_grpo": "fixed_horizon",
    },
)

# The options that the adapter reads; tests/test_adapters.py compares them with the code.
OPTIONS = (
    "advantage_estimator advantage_reweight beta delta epsilon epsilon_high eval_strategy "
    "gradient_checkpointing_kwargs importance_sampling_level kl_in_reward loss_type max_completion_length "
    "model model_revision model_type neftune_noise_alpha num_generations output_dir ref_model "
    "ref_model_revision ref_model_type reward_weights rollout_importance_sampling_mode "
    "rollout_importance_sampling_threshold scale_rewards sdar_loss_coef sequence_parallel_size tau_neg "
    "tau_pos teacher_model teacher_model_server temperature tuner_type use_liger_kernel use_vllm"
)

FUNCTIONS: FunctionTable = {
    "swift.arguments:RLHFArguments": OPTIONS,
    "swift.rlhf_trainers.grpo_trainer:GRPOTrainer": {
        "__init__": "self model ref_model reward_model reward_funcs _args kwargs",
        "_prepare_batch_inputs": "self samples",
        "_postprocess_batch": "self samples batch_encoded_inputs",
        "_get_per_token_logps_and_entropies": "self model model_inputs grpo_batch compute_entropy "
        "origin_data",
        "_get_per_token_logps_and_entropies_single": "self model model_inputs grpo_batch compute_entropy",
        "_get_logps_via_sp": "self model model_inputs grpo_batch logits_to_keep input_ids compute_entropy",
        "compute_loss": "self model inputs return_outputs num_items_in_batch",
        "compute_std": "self samples rewards_per_func",
        "null_ref_context": "self",
        "split_by_mini_batches": "self samples",
        "log": "self logs start_time",
    },
    "swift.rlhf_trainers.utils": {
        "get_even_process_data": "trainer global_data",
        "pad_logps_back_to_batch": "logps_rmpad position_ids logits_to_keep batch_size seq_lengths dtype "
        "pad_value",
    },
    "swift.arguments.rlhf_args:RLHFArguments": {"_check_grpo": "self"},
    "swift.pipelines.train.rlhf:SwiftRLHF": {"_prepare_model_tokenizer": "self"},
    "swift.pipelines.train.sft:SwiftSft": {"_prepare_model_tokenizer": "self kwargs"},
    "swift.trainers:TrainerFactory.TRAINER_MAPPING": {},
    "swift.trainers:disable_gradient_checkpointing": {},
    "swift.sequence_parallel:sequence_parallel.world_size": {},
    "swift.sequence_parallel:sequence_parallel.sp_world_size": {},
    "swift.sequence_parallel:sequence_parallel.rp_world_size": {},
    "swift.sequence_parallel:sequence_parallel.__class__.sp_rank": {},
    "swift.sequence_parallel:sequence_parallel.__class__.sp_group": {},
}
