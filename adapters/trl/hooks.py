"""TRL as this adapter knows it: the supported releases and the functions that it overrides or calls."""

from dataclasses import replace

from credit.adapters.fields import STATISTICS
from credit.adapters.framework import Framework
from credit.adapters.hooks import FunctionTable

FRAMEWORK = Framework(
    name="TRL",
    distribution="trl",
    supported=">=1.9,<1.17",
    provides=(*STATISTICS, "rollout_log_probs", "turns", "progress", "extra.token_ids"),
    given=("token_rewards",),
    extra="what a rollout_func returns beside its completions, a column that a reward function logs by "
    "log_extra, or a column of the data set (token_rewards also: lists that a reward function returns)",
    group_size="num_generations",
    several_rewards=True,
    runs_newer=True,
    rollout_log_probs="use_vllm=True, or give a rollout_func that returns logprobs",
    aggregations={
        "dapo": "token_mean",
        "bnpo": "token_mean",
        "grpo": "sequence_mean",
        "luspo": "sequence_sum",
        "dr_grpo": "fixed_horizon",
    },
)

# The options that the adapter reads; tests/test_adapters.py compares them with the code.
OPTIONS = (
    "beta cast_lm_head_to_fp32 delta disable_dropout epsilon epsilon_high "
    "gradient_accumulation_steps gradient_checkpointing_kwargs ignore_data_skip "
    "importance_sampling_level loss_type mask_truncated_completions max_completion_length "
    "multi_objective_aggregation neftune_noise_alpha num_generations num_iterations output_dir "
    "per_device_train_batch_size reward_weights sapo_temperature_neg sapo_temperature_pos "
    "scale_rewards seed steps_per_generation sync_ref_model use_liger_kernel use_vllm vespo_k_neg "
    "vespo_k_pos vespo_lambda_neg vespo_lambda_pos vllm_importance_sampling_clip_max "
    "vllm_importance_sampling_clip_min vllm_importance_sampling_correction "
    "vllm_importance_sampling_mode"
)

INIT = (
    "self model reward_funcs args train_dataset eval_dataset processing_class reward_processing_classes "
    "callbacks optimizers quantization_config peft_config tools rollout_func environment_factory"
)

TRAINER = "trl.trainer.grpo_trainer:GRPOTrainer"

FUNCTIONS: FunctionTable = {
    "trl:GRPOConfig": OPTIONS,
    TRAINER: {
        "__init__": INIT,
        "_generate_and_score_completions": "self inputs",
        "_calculate_rewards": "self inputs prompts completions completion_ids_list",
        "_generate": "self prompts",
        "_log_completion_extra": "self column values",
        "compute_loss": "self model inputs return_outputs num_items_in_batch",
        "_compute_loss": "self model inputs",
        "_get_train_sampler": "self dataset",
        "_save_rng_state": "self output_dir",
        "_load_optimizer_and_scheduler": "self checkpoint",
        "log": "self logs start_time",
        "create_model_card": "self model_name dataset_name tags",
    },
    "trl.trainer.grpo_trainer:GRPOTrainer._get_per_token_logps_and_entropies": {},
    "trl.trainer.utils": {
        "disable_dropout_in_model": "model",
        "pad": "tensors padding_value padding_side pad_to_multiple_of",
        "add_fused_lm_head": {">=1.15": "model temperature cast_lm_head_to_fp32 outputs"},
        "use_adapter": "model adapter_name",
    },
    "trl.models.utils": {
        "disable_gradient_checkpointing": "model gradient_checkpointing_kwargs",
        "prepare_deepspeed": "model accelerator",
        "prepare_fsdp": "model accelerator",
    },
    "trl.scripts.utils:TrlParser": {
        "parse_args_and_config": "self args return_remaining_strings fail_with_unknown_args "
        "separate_remaining_strings",
    },
    "trl.scripts.grpo": {"main": "script_args training_args model_args dataset_args"},
}

# The asynchronous trainer, adapters/trl/async_grpo.py: TRL 1.9 has no place for another rollout loop.
ASYNC_FRAMEWORK = replace(FRAMEWORK, supported=f">=1.10,{FRAMEWORK.supported.partition(',')[2]}")

ASYNC_FUNCTIONS = {
    "trl.experimental.async_grpo.async_rollout_worker:_AsyncRolloutLoop": {"_score_group": "self group"},
    "trl.experimental.async_grpo.async_rollout_worker:AsyncRolloutWorker._loop_cls": {},
}

# Unsloth, adapters/trl/unsloth.py: it generates a trainer in a module of its own and replaces TRL's by it.
UNSLOTH = replace(FRAMEWORK, name="Unsloth", distribution="unsloth", supported=">=2026.10.9,<2026.10.10")

UNSLOTH_TRAINER = "UnslothGRPOTrainer:_UnslothGRPOTrainer"

UNSLOTH_FUNCTIONS: FunctionTable = {
    "UnslothGRPOTrainer": {
        "align_completion_tool_mask": "tool_mask completion_mask",
        "left_pack_padding": "tensor pad_id",
    },
    "UnslothGRPOTrainer:UnslothEfficientGRPO": {
        "forward": "ctx _new_logps _old_logps _ref_logps _sampling_per_token_logps lm_head _input_ids _mask "
        "_advantages beta scaler n_chunks extra_kwargs upstream_scale",
    },
}
