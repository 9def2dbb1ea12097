"""verl as this adapter knows it: the supported releases and the functions that it overrides or calls."""

from credit.adapters.fields import STATISTICS
from credit.adapters.framework import Framework

FRAMEWORK = Framework(
    name="verl",
    distribution="verl",
    supported=">=0.9.1,<0.10",
    provides=(
        *(*STATISTICS, "rollout_log_probs", "token_rewards", "turns", "progress"),
        *("extra.token_ids", "extra.values"),
    ),
    extra="extra_fields of an agent loop's output, what a reward function returns beside its score, "
    "extra_info of the data set, or a column of it",
    prefix="credit_",  # verl keeps plain names such as grpo for itself
    group_size="actor_rollout_ref.rollout.n",
    several_rewards=True,
    rollout_log_probs="actor_rollout_ref.rollout.calculate_log_probs=True",
    aggregations={
        "token-mean": "token_mean",
        "seq-mean-token-mean": "sequence_mean",
        "seq-mean-token-sum": "sequence_sum",
        "seq-mean-token-sum-norm": "fixed_horizon",
    },
    loss_hint="clip_ratio_c=None is no dual clip, which a large number gives",
)

REGISTRY = {"verl.trainer.ppo.core_algos": {"register_adv_est": "name_or_enum"}}

TRAINER = {
    "verl.trainer.ppo.v1:PPOTrainer": {
        "__init__": "self config",
        "_init_resource_pool_mgr": "self",
        "_compute_old_log_prob": "self batch metrics",
        "_compute_advantage": "self batch metrics",
    },
    "verl.workers.utils.padding": {"response_from_nested": "tensor response_mask"},
}

LEGACY = {
    "verl.trainer.ppo.ray_trainer:RayPPOTrainer": {
        "_compute_old_log_prob": "self batch",
        "_compute_ref_log_prob": "self batch",
        "_update_actor": "self batch",
        "_update_critic": "self batch",
    },
}

WORKER = {
    "verl.workers.engine_workers:ActorRolloutRefWorker": {
        "init_model": "self",
        "compute_log_prob": "self data",
    },
    "verl.workers.engine_workers:TrainingWorker": {"infer_batch": "self data", "set_loss_fn": "self loss_fn"},
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead": {
        "forward_step": "self micro_batch loss_function forward_only",
        "prepare_model_inputs": "self micro_batch",
        "prepare_model_outputs": "self output output_args micro_batch logits_processor_func",
        "_gather_and_unpad_packed": "self tensor pad_size",
    },
}

MEGATRON = {  # which can be imported where megatron-core is installed
    "verl.workers.engine.megatron.transformer_impl:MegatronEngineWithLMHead": {
        "disable_adapter": "self",
        "forward_step": "self batch_iter model logits_processor_func postprocess_micro_batch_func",
        "_get_context_parallel_layout": "unwrapped_model",
    },
    "verl.models.mcore.util": {
        "preprocess_thd_engine": "input_ids pre_process need_roll use_fp8_padding local_cp_size "
        "min_local_rows pad_to_length_bucket cp_layout",
        "preprocess_bshd_engine": "input_ids pre_process need_roll use_fp8_padding forced_max_seqlen",
    },
    "verl.utils.megatron_utils": {"unwrap_model": "model module_instances"},
}

FUNCTIONS = REGISTRY | TRAINER | LEGACY | WORKER
