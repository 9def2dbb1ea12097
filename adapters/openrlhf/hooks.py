"""OpenRLHF as this adapter knows it: the supported releases and the functions that it overrides or calls."""

from credit.adapters.fields import STATISTICS
from credit.adapters.framework import Framework

FRAMEWORK = Framework(
    name="OpenRLHF",
    distribution="openrlhf",
    supported=">=0.10.4,<0.12",
    provides=(*STATISTICS, "rollout_log_probs", "turns", "progress", "extra.token_ids", "extra.values"),
    given=("token_rewards",),
    extra="extra_logs, which a reward function or an agent's last step returns: a number, or a list of "
    "numbers, one per action token or as many for every response",
    group_size="--rollout.n_samples_per_prompt",
    rollout_log_probs="--algo.advantage.is_correction_level token "
    "(--algo.advantage.is_correction_enable before 0.11.2)",
    aggregations={"token-mean": "token_mean", "seq-mean-token-mean": "sequence_mean"},
)

# One table for each class, since each of Ray's workers imports only the class that it uses.
EXPERIENCE_MAKER = {
    "openrlhf.trainer.ppo_utils.experience_maker:RemoteExperienceMaker": {
        "make_experience": "self samples_list",
        "compute_advantages_and_returns": "self experiences",
    },
    "openrlhf.trainer.ppo_utils.experience_maker": {"apply_length_penalties": "experiences args"},
}

TRAINER = {
    "openrlhf.trainer.ppo_trainer:BasePPOTrainer": {"train_step": "self rollout_samples global_step"},
}

SAMPLES_GENERATOR = {
    "openrlhf.trainer.ppo_utils.samples_generator:SamplesGenerator": {
        "_process_response_into_experience": "self response generate_kwargs",
        "_generate_vllm": "self dataloader_iter num_prompts dynamic_filtering generate_kwargs",
    },
}

# In the rollout workers, whose agents are the user's.
AGENT = {
    "openrlhf.utils.agent:MultiTurnAgentExecutor": {
        "execute": "self prompt label sampling_params max_length hf_tokenizer llm_engine images",
    },
    "openrlhf.utils.agent:AgentInstanceBase": {"step": "self state_dict kwargs"},
}

# The class under Ray's decorator.
WORKER = {
    "openrlhf.trainer.ray.ppo_actor:PolicyModelActor.__ray_actor_class__": {
        "init_model_from_pretrained": "self strategy pretrain max_steps vllm_engines",
        "forward": "self sequences action_mask attention_mask packed_seq_lens mm_train_inputs_list",
        "broadcast_to_vllm": "self",
    },
}

POLICY_TRAINER = {
    "openrlhf.trainer.ray.ppo_actor:ActorPPOTrainer": {
        "training_step": "self experience kl_ctl step loss_batch_info",
        "broadcast_to_vllm": "self",
    },
}

CRITIC_TRAINER = {
    "openrlhf.trainer.ray.ppo_critic:CriticPPOTrainer": {
        "training_step": "self experience step loss_batch_info",
    },
}

SCORING = {
    "openrlhf.models.ring_attn_utils": {
        "unpad_and_slice_tensor": "sequences attention_mask ring_attn_group",
        "gather_and_pad_tensor": "tensor ring_attn_group ring_attn_pad_len indices batch seqlen",
    },
    "openrlhf.utils.vlm_utils": {"merge_mm_train_inputs": "mm_train_inputs_list device"},
}

FUNCTIONS = EXPERIENCE_MAKER | TRAINER | SAMPLES_GENERATOR | AGENT | WORKER | POLICY_TRAINER | CRITIC_TRAINER
FUNCTIONS |= SCORING
