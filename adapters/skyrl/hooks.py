"""SkyRL as this adapter knows it: the supported releases and the functions that it overrides or calls."""

from credit.adapters.fields import STATISTICS
from credit.adapters.framework import Framework
from credit.adapters.hooks import FunctionTable

FRAMEWORK = Framework(
    name="SkyRL",
    distribution="skyrl",
    supported=">=0.3,<0.5",
    provides=(
        *(*STATISTICS, "rollout_log_probs", "token_rewards", "turns", "progress"),
        *("extra.token_ids", "extra.values"),
    ),
    extra="a list with a row per response, under that name in what your generator returns",
    prefix="credit_",  # SkyRL keeps plain names such as grpo for itself
    group_size="generator.n_samples_per_prompt",
    rollout_log_probs="generator.sampling_params.logprobs=1",
    aggregations={
        "token_mean": "token_mean",
        "sequence_mean": "sequence_mean",
        "seq_mean_token_sum_norm": "fixed_horizon",
    },
    loss_hint="clip_ratio_c=None is no dual clip, as with policy_loss_type=regular",
)

BACKEND = "skyrl.backends.skyrl_train"

REGISTRY: FunctionTable = {
    f"{BACKEND}.utils.ppo_utils:AdvantageEstimatorRegistry": {
        "register": "name func",
        "list_available": "",
        "repopulate_registry": "",
    },
    f"{BACKEND}.utils.ppo_utils": {
        "compute_advantages_and_returns": "token_level_rewards response_mask index adv_estimator config "
        "values grpo_norm_by_std gamma lambd kwargs",
    },
}

ENTRYPOINT: FunctionTable = {
    "skyrl.train.config:SkyRLTrainConfig": {"from_cli_overrides": "args"},
    "skyrl.train.entrypoints.main_base": {"main": "", "validate_cfg": "cfg", "initialize_ray": "cfg"},
    "skyrl.train.entrypoints.main_base:BasePPOExp": {
        "__init__": "self cfg",
        "get_trainer": "self cfg tracker tokenizer train_dataset eval_dataset inference_engine_client "
        "generator colocate_pg",
        "run": "self",
    },
}

TRAINER: FunctionTable = {
    "skyrl.train.trainer:RayPPOTrainer": {
        "build_models": "self PolicyWorker CriticWorker RefWorker",
        "convert_to_training_input": "self generator_output uids",
        "fwd_logprobs_values_reward": "self training_input",
        "compute_advantages_and_returns": "self data",
        "_execute_forward_pass": "self model data_fwd_pass key mini_batch_boundaries",
        "_skip_policy_forward": "self training_input",
    },
    f"{BACKEND}.workers.worker_dispatch:WorkerDispatch": {
        "forward": {
            "<0.4": "self model data loss_fn loss_fn_config model_id",
            ">=0.4": "self model data loss_fn loss_fn_config model_id worker_kwargs",
        },
        "forward_from_staged": {
            "<0.4": "self model chunk_refs loss_fn loss_fn_config model_id",
            ">=0.4": "self model chunk_refs loss_fn loss_fn_config model_id worker_kwargs",
        },
    },
}

WORKER: FunctionTable = {
    f"{BACKEND}.workers.fsdp.fsdp_worker:FSDPPolicyWorkerBase": {
        "forward": {
            "<0.4": "self data loss_fn loss_fn_config",
            ">=0.4": "self data loss_fn loss_fn_config return_per_token_outputs",
        },
        "_forward_micro_batch": "self micro_batch",
        "offload_to_cpu": "self offload_optimizer offload_model",
    },
    f"{BACKEND}.distributed.fsdp_strategy:FSDPStrategy": {
        "prepare": "self models_or_model_optim_pairs",
        "offload_to_cpu": "self model optimizer offload_optimizer offload_model",
        "backload_to_gpu": "self model optimizer backload_optimizer backload_model",
    },
    f"{BACKEND}.distributed.fsdp_utils": {"should_use_meta_init": "use_meta_tensor mesh"},
    f"{BACKEND}.workers.worker_utils": {
        "get_microbatch_iterator": "data micro_batch_size max_tokens_per_microbatch"
    },
    f"{BACKEND}.workers.model_wrapper:HFModelWrapper": "pretrain_or_model use_flash_attention_2 bf16 "
    "sequence_parallel_size remove_microbatch_padding model_config_kwargs meta_init language_model_only "
    "logprobs_chunk_size",
}

FUNCTIONS: FunctionTable = {**REGISTRY, **ENTRYPOINT, **TRAINER, **WORKER}
