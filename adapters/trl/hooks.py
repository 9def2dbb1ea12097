"""The release of TRL and its functions, private ones among them, that this adapter is written for."""

from pkgutil import resolve_name

from credit.adapters import hooks

SUPPORTED = "==1.16.*"

FUNCTIONS = {
    "trl.trainer.grpo_trainer:GRPOTrainer": {
        "__init__": "self model reward_funcs args train_dataset eval_dataset processing_class "
        "reward_processing_classes callbacks optimizers quantization_config peft_config tools rollout_func "
        "environment_factory",
        "_generate_and_score_completions": "self inputs",
        "_calculate_rewards": "self inputs prompts completions completion_ids_list",
        "_compute_loss": "self model inputs",
        "_get_train_sampler": "self dataset",
        "_save_rng_state": "self output_dir",
        "_load_optimizer_and_scheduler": "self checkpoint",
    },
    "trl.trainer.utils": {
        "add_fused_lm_head": "model temperature cast_lm_head_to_fp32 outputs",
        "disable_dropout_in_model": "model",
        "pad": "tensors padding_value padding_side pad_to_multiple_of",
        "maybe_gather_lm_head_ctx": "params",
        "use_adapter": "model adapter_name",
    },
    "trl.models.utils": {
        "disable_gradient_checkpointing": "model gradient_checkpointing_kwargs",
        "prepare_deepspeed": "model accelerator",
        "prepare_fsdp": "model accelerator",
    },
    "trl.scripts.grpo": {"main": "script_args training_args model_args dataset_args"},
}


def check() -> None:
    """An ImportError that names what is installed and what is supported, unless TRL is as it was known."""
    hooks.check_version("trl", SUPPORTED)
    try:
        for owner, functions in FUNCTIONS.items():
            for name, parameters in functions.items():
                hooks.check_signature("trl", resolve_name(owner), name, *parameters.split())
    except (ImportError, AttributeError) as error:
        raise ImportError(f"{error}; credit supports trl {SUPPORTED}") from error
