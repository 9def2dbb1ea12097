#!/usr/bin/env bash
# Trains a language model on maths problems with verl, vLLM and an estimator of credit, on GPUs.
#
#   pip install "token-credit[verl]" vllm
#   MODEL=Qwen/Qwen2.5-7B TRAIN=gsm8k/train.parquet VAL=gsm8k/test.parquet bash examples/verl/train.sh dgpo
#   ... bash examples/verl/train.sh dapo trainer.n_gpus_per_node=4 algorithm.filter_groups.max_inflight_gen_batches=2
#
# The first argument names a file of config/: verl's own configuration with the lines that the estimator
# changes. All others are Hydra overrides. The data are parquet files with verl's columns (data_source,
# prompt, reward_model.ground_truth), as the scripts of verl's examples/data_preprocess make them; the
# reward here compares the last number of a response with that of the answer. Leave the two
# reward.custom_reward_function lines out to have verl's own reward for your data_source.
#
# Not run by this repository's tests, which have no GPU: they run the same configurations on a CPU
# (train_on_cpu.py).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
estimator=${1:?one of dgpo, dapo, grpo, dr_grpo, rloo}
shift
: "${MODEL:?path or hub name of the model}" "${TRAIN:?parquet file to train on}" "${VAL:?parquet file to validate on}"

exec python -m verl.trainer.main_ppo --config-dir "$here/config" --config-name "$estimator" \
    actor_rollout_ref.model.path="$MODEL" \
    data.train_files="$TRAIN" data.val_files="$VAL" \
    data.train_batch_size=256 data.max_prompt_length=1024 data.max_response_length=8192 \
    data.filter_overlong_prompts=True \
    reward.custom_reward_function.path="$here/reward.py" \
    reward.custom_reward_function.name=last_number_match \
    actor_rollout_ref.model.use_remove_padding=True \
    actor_rollout_ref.model.enable_gradient_checkpointing=True \
    actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.ref.strategy=fsdp2 \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=64 \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=16384 \
    actor_rollout_ref.ref.fsdp_config.param_offload=True \
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=16 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    trainer.n_gpus_per_node=8 trainer.nnodes=1 \
    trainer.project_name=credit trainer.experiment_name="$estimator" \
    trainer.logger='[console,file]' trainer.save_freq=50 trainer.test_freq=10 \
    "$@"
