#!/usr/bin/env bash
# Trains a language model on maths problems with OpenRLHF, vLLM and an estimator of credit, on 8 GPUs.
#
# Install OpenRLHF 0.11.2 with vLLM as its own page says, then `pip install .` in a checkout of this repository.
#
#   MODEL=Qwen/Qwen2.5-7B DATA=problems.jsonl bash examples/openrlhf/train.sh dgpo
#   ... bash examples/openrlhf/train.sh dapo --reward.overlong_buffer_len 4096 --logger.wandb.key $KEY
#
# The first argument names a file of estimators/: the flags that the estimator changes. All others are flags
# of OpenRLHF and come last, so that they win. The data are JSON lines with `input` and `label`; the reward
# here compares the last number of a response with that of the label.
#
# Older releases have no --actor.loss_agg_mode, so take that line out of the file. Not run
# by this repository's tests, which have no GPU: they run the same flags on a CPU (train_on_cpu.py).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
estimator=${1:?one of dgpo, dapo, grpo, dr_grpo, rloo}
shift
: "${MODEL:?path or hub name of the model}" "${DATA:?JSON lines to train on}"
read -ra flags <<< "$(sed 's/#.*//' "$here/estimators/$estimator.txt" | tr '\n' ' ')"

# With exact statistics the fp32 logits of policy and reference are held at once in the log-prob pass, so
# rollout.max_tokens_per_gpu is half of what GRPO would take; --ref.offload keeps the reference on the CPU.
exec python -m credit.adapters.openrlhf "${flags[@]}" \
    --actor.model_name_or_path "$MODEL" \
    --data.prompt_dataset "$DATA" --data.input_key input --data.label_key label --data.apply_chat_template \
    --data.max_len 9216 --rollout.max_new_tokens 8192 \
    --reward.remote_url "$here/reward.py" \
    --train.colocate_all --vllm.enable_sleep --vllm.gpu_memory_utilization 0.5 \
    --actor.num_gpus_per_node 8 --vllm.num_engines 8 --vllm.tensor_parallel_size 1 \
    --ds.zero_stage 3 --ds.packing_samples --actor.gradient_checkpointing_enable \
    --train.dynamic_batch_enable --train.max_tokens_per_gpu 16384 --rollout.max_tokens_per_gpu 16384 \
    --rollout.batch_size 128 --rollout.n_samples_per_prompt 8 --train.batch_size 1024 \
    --actor.adam.lr 1e-6 --train.num_episodes 1 \
    --ckpt.output_dir "runs/$estimator" --ckpt.path "runs/$estimator/checkpoints" --ckpt.save_steps 50 \
    --logger.tensorboard_dir "runs/$estimator/tensorboard" \
    "$@"
