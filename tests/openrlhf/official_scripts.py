"""OpenRLHF's RL scripts (its examples/scripts) as its release 0.11.2 takes them: every flag, by script.

Left out are those that only name a place (paths and data are replaced anyway) or repeat OpenRLHF's default.
What 0.11.2 renamed since is translated: `is_correction_enable` is now `is_correction_level token`, whose
mode was `clip` unless `is_correction_type icepop` made it `mask`.
"""

import shlex
from typing import NamedTuple

# In every script but the last, whose rows are not packed.
COMMON = """
    --data.apply_chat_template --ds.zero_stage 3 --ds.param_dtype bf16 --ds.packing_samples
    --actor.gradient_checkpointing_enable --train.max_epochs 1
"""
TIS = "--algo.advantage.is_correction_level token --algo.advantage.is_correction_mode clip"
ICEPOP = "--algo.advantage.is_correction_level token --algo.advantage.is_correction_mode mask"
SLEEP = "--vllm.sync_backend nccl --vllm.enforce_eager --vllm.enable_sleep --ds.enable_sleep"
LLAMA = "--actor.model_name_or_path policy --data.input_key context_messages --data.max_len 2048"
PPO = """
    --critic.num_nodes 1 --critic.adam.lr 9e-6 --actor.adam.lr 5e-7 --algo.kl.init_coef 0.01
    --reward.normalize_enable --train.batch_size 128 --rollout.batch_size 1024 --data.max_samples 100000
"""
# What the two scripts of OpenRLHF's REINFORCE++ baseline with an agent share; one is asynchronous.
AGENT = f"""
    {COMMON} {ICEPOP} --ckpt.load_enable --ckpt.save_hf --ckpt.max_num 3 --ckpt.save_steps 10
    --actor.model_name_or_path policy --train.agent_func_path agent.py --data.input_key prompt
    --data.label_key label --data.max_len 74240 --rollout.max_new_tokens 64000
    --rollout.batch_size 128 --rollout.n_samples_per_prompt 8 --train.batch_size 1024
    --algo.dynamic_filtering_enable --algo.dynamic_filtering_range 0.0 1.0
    --train.dynamic_batch_enable --train.max_tokens_per_gpu 16192 --rollout.max_tokens_per_gpu 32768
    --train.micro_batch_size 1 --rollout.micro_batch_size 8 --data.max_samples 128000 --train.num_episodes 1
    --ref.num_gpus_per_node 4 --actor.num_gpus_per_node 4 --vllm.num_engines 2 --vllm.tensor_parallel_size 2
    --train.colocate_all --ds.enable_sleep --vllm.sync_backend nccl --vllm.enforce_eager
    --ds.ring_attn_size 2 --ds.ring_attn_head_stride 2
    --algo.advantage.estimator reinforce_baseline --actor.adam.lr 5e-7 --actor.entropy_coef 0.0
    --algo.kl.init_coef 1e-5 --algo.kl.use_loss --algo.kl.estimator k2
    --logger.tensorboard_dir runs --logger.logging_steps 1 --eval.steps -1
"""

SCRIPTS = {
    "train_dapo_ray_hybrid_engine": f"""
        {COMMON} {TIS} {SLEEP} {LLAMA} --ref.num_gpus_per_node 8 --actor.num_gpus_per_node 8
        --vllm.num_engines 4 --vllm.tensor_parallel_size 2 --train.colocate_all
        --vllm.gpu_memory_utilization 0.6 --algo.kl.init_coef 1e-3 --algo.advantage.gamma 1.0
        --algo.kl.use_loss --algo.kl.estimator k3 --algo.advantage.estimator group_norm
        --algo.dynamic_filtering_enable --algo.dynamic_filtering_range 0 1
        --actor.eps_clip_low_high 0.2 0.27 --reward.remote_url reward.py --ckpt.save_steps 20 --ckpt.save_hf
        --train.micro_batch_size 8 --train.batch_size 128 --rollout.micro_batch_size 16
        --rollout.batch_size 128 --rollout.n_samples_per_prompt 8 --data.max_samples 20000
        --actor.adam.lr 5e-7
    """,
    "train_ppo_ray_hybrid_engine": f"""
        {COMMON} {TIS} {SLEEP} {LLAMA} {PPO} --ref.num_gpus_per_node 8 --reward.num_gpus_per_node 8
        --critic.num_gpus_per_node 8 --actor.num_gpus_per_node 8 --vllm.num_engines 4
        --vllm.tensor_parallel_size 2 --train.colocate_all --vllm.gpu_memory_utilization 0.5
        --reward.model_name_or_path reward --ckpt.save_hf --rollout.n_samples_per_prompt 1
        --train.dynamic_batch_enable --train.max_tokens_per_gpu 16384
    """,
    "train_ppo_with_reward_fn": f"""
        {COMMON} {LLAMA} {PPO} --ref.num_gpus_per_node 2 --critic.num_gpus_per_node 2
        --actor.num_gpus_per_node 2 --vllm.num_engines 2 --vllm.tensor_parallel_size 2
        --train.colocate_actor_ref --reward.remote_url reward.py --train.micro_batch_size 8
        --rollout.micro_batch_size 16 --ds.adam_offload --ds.attn_implementation flash_attention_2
        --logger.wandb.key token
    """,
    "train_ppo_ray_slurm": f"""
        {COMMON} {LLAMA} {PPO} --ref.num_gpus_per_node 4 --reward.num_gpus_per_node 4
        --critic.num_gpus_per_node 4 --actor.num_gpus_per_node 4 --vllm.num_engines 4
        --vllm.tensor_parallel_size 2 --train.colocate_critic_reward --train.colocate_actor_ref
        --reward.model_name_or_path reward --train.micro_batch_size 8 --rollout.micro_batch_size 16
        --ds.adam_offload --vllm.sync_backend nccl --logger.wandb.key token
    """,
    "train_prorlv2_math_hybrid_engine": f"""
        {COMMON} {ICEPOP} {SLEEP} --ref.num_gpus_per_node 8 --actor.num_gpus_per_node 8
        --vllm.num_engines 8 --vllm.tensor_parallel_size 1 --train.colocate_all
        --vllm.gpu_memory_utilization 0.75 --algo.kl.init_coef 1e-4 --algo.advantage.gamma 1.0
        --algo.kl.use_loss --algo.kl.estimator k2 --algo.advantage.estimator reinforce_baseline
        --algo.dynamic_filtering_enable --algo.dynamic_filtering_range 0 1
        --actor.eps_clip_low_high 0.2 0.27 --actor.model_name_or_path policy --reward.remote_url reward.py
        --ckpt.save_steps 5 --ckpt.save_hf --train.batch_size 1024 --rollout.batch_size 512
        --rollout.n_samples_per_prompt 16 --train.dynamic_batch_enable --train.num_episodes 100
        --data.max_len 9216 --rollout.max_new_tokens 8192 --actor.adam.lr 1e-6
        --data.input_key prompt --data.label_key label --eval.dataset data --eval.steps 5
        --eval.temperature 1.0 --eval.n_samples_per_prompt 4
        --algo.advantage.is_correction_threshold 0.5 5.0 --train.max_tokens_per_gpu 32768
        --reward.stop_properly_penalty_coef 0.0
    """,
    "train_reinforce_baseline_hybrid_engine": f"{AGENT} --vllm.gpu_memory_utilization 0.7",
    "train_reinforce_baseline_ray_agent_async": f"""
        {AGENT} --train.async_enable --train.partial_rollout_enable --vllm.gpu_memory_utilization 0.95
    """,
    "train_flash_reinforce_ray_agent_async": """
        --actor.model_name_or_path policy --ckpt.load_enable --ckpt.save_hf --ckpt.max_num 3
        --ckpt.save_steps 50 --reward.remote_url reward.py --data.input_key prompt --data.label_key label
        --data.apply_chat_template --data.max_len 9216 --rollout.max_new_tokens 8192
        --rollout.temperature 1.0 --rollout.top_p 1.0 --ds.packing_samples --rollout.batch_size 128
        --rollout.vllm_generate_batch_size 512 --rollout.n_samples_per_prompt 1
        --rollout.micro_batch_size 1 --train.batch_size 128 --train.micro_batch_size 1 --train.max_epochs 1
        --train.num_episodes 1000 --data.max_samples 128000 --train.async_enable
        --train.async_queue_size 8 --actor.num_gpus_per_node 1 --vllm.num_engines 7
        --vllm.tensor_parallel_size 1 --vllm.gpu_memory_utilization 0.9 --vllm.sync_backend nccl
        --ds.zero_stage 2 --actor.gradient_checkpointing_enable --ds.param_dtype bf16
        --algo.advantage.estimator flash_reinforce --algo.advantage.is_correction_level seq
        --algo.advantage.is_correction_gating binary_kl --algo.advantage.is_correction_threshold 5e-3
        --actor.loss_agg_mode seq-mean-token-mean --algo.kl.init_coef 0 --actor.adam.lr 1e-6
        --actor.adam.weight_decay 0.1 --logger.tensorboard_dir runs --logger.logging_steps 1 --eval.steps -1
    """,
    "train_vlm_math_hybrid_engine": f"""
        {SLEEP} --data.apply_chat_template --ds.zero_stage 3 --ds.param_dtype bf16
        --actor.gradient_checkpointing_enable --ref.num_gpus_per_node 4 --actor.num_gpus_per_node 4
        --vllm.num_engines 4 --vllm.tensor_parallel_size 1 --train.colocate_all
        --vllm.gpu_memory_utilization 0.7 --algo.kl.init_coef 0 --algo.advantage.gamma 1.0
        --algo.kl.use_loss --algo.kl.estimator k2 --algo.advantage.estimator reinforce_baseline
        --actor.model_name_or_path policy --reward.remote_url reward.py --ckpt.save_hf --ckpt.save_steps 5
        --eval.steps -1 --train.micro_batch_size 1 --rollout.micro_batch_size 1 --train.batch_size 1024
        --rollout.batch_size 128 --rollout.n_samples_per_prompt 8 --train.num_episodes 100
        --data.max_len 4096 --rollout.max_new_tokens 2048 --actor.adam.lr 2e-6
        --data.input_key prompt --data.label_key label --data.image_key images
        --data.max_images_per_prompt 1 --actor.freeze_visual_encoder --ds.attn_implementation eager
    """,
}

# What becomes smaller, in a script that has it: the flag, and what it becomes. Two batches of 16 responses, to
# four prompts or, in a script with one response to each, to 16.
SMALLER = {
    "--data.max_len": "24",
    "--rollout.max_new_tokens": "12",
    "--rollout.micro_batch_size": "4",
    "--train.batch_size": "16",
    "--train.micro_batch_size": "4",
    "--train.max_tokens_per_gpu": "96",
    "--rollout.max_tokens_per_gpu": "96",
    "--train.num_episodes": "1",
    "--ckpt.save_steps": "1",
    "--eval.steps": "1",
}
# What one machine without a GPU, or two steps, cannot do as the script says: the flag, its value, the reason.
# Beside it the stand-ins put sdpa in place of flash attention, and what a script hands to a cluster by
# `ray job submit` is started directly.
CHANGED = {
    "--vllm.tensor_parallel_size": ("1", "the stand-in for vLLM has one worker"),
    "--logger.wandb.key": (None, "nothing is sent over the network"),
    "--actor.adam.lr": ("2e-3", "a step of 5e-7 is less than bfloat16 keeps of these weights"),
    "--critic.adam.lr": ("2e-3", "as the policy's"),
}
# What has to be added for two steps to show anything.
ADDED = {"--actor.lr_warmup_ratio": "0", "--critic.lr_warmup_ratio": "0"}


class Place(NamedTuple):
    """Where a small run finds its models, data, agent and rewards, and puts its results."""

    policy: str
    reward_model: str
    data: str
    agent: str
    reward: str
    output: str


def read_flags(text: str) -> dict[str, list[str]]:
    """The values by flag."""
    flags: dict[str, list[str]] = {}
    for word in shlex.split(text):
        if word.startswith("--"):
            last = flags[word] = []
        else:
            last.append(word)
    return flags


def join_flags(flags: dict[str, list[str]]) -> list[str]:
    return [word for flag, values in flags.items() for word in (flag, *values)]


def make_small(name: str, place: Place, ranks: int = 1, **changes: str | None) -> list[str]:
    """The script's flags with sizes for a CPU; `ranks` is what each model has.

    `changes` are flags with `__` for the point, for what a case changes beside; None leaves a flag out.
    """
    flags = read_flags(SCRIPTS[name])
    responses = 4 if int(flags.get("--rollout.n_samples_per_prompt", ["1"])[0]) > 1 else 1
    prompts = 16 // responses
    flags |= {flag: [value] for flag, value in SMALLER.items() if flag in flags and flags[flag] != ["-1"]}
    flags |= {"--rollout.n_samples_per_prompt": [str(responses)], "--rollout.batch_size": [str(prompts)]}
    flags["--data.max_samples"] = [str(2 * prompts)]
    if "--rollout.vllm_generate_batch_size" in flags:
        flags["--rollout.vllm_generate_batch_size"] = [str(2 * prompts)]
    flags |= {flag: [value] for flag, value in ADDED.items()}
    flags |= {flag: [str(ranks)] for flag in flags if flag.endswith(".num_gpus_per_node")}
    flags["--vllm.num_engines"] = [str(ranks)]
    for flag, (value, _) in CHANGED.items():
        if flag in flags:
            flags[flag] = [value]
    paths = {
        "--actor.model_name_or_path": place.policy,
        "--reward.model_name_or_path": place.reward_model,
        "--eval.dataset": place.data,
        "--train.agent_func_path": place.agent,
        "--reward.remote_url": place.reward,
        "--logger.tensorboard_dir": f"{place.output}/tensorboard",
    }
    flags |= {flag: [path] for flag, path in paths.items() if flag in flags}
    flags |= {"--data.prompt_dataset": [place.data], "--ckpt.output_dir": [f"{place.output}/trained"]}
    flags |= {"--ckpt.path": [f"{place.output}/checkpoints"]}
    flags |= {"--" + name.replace("__", "."): value and [value] for name, value in changes.items()}
    return join_flags({flag: values for flag, values in flags.items() if values not in (None, [None])})
