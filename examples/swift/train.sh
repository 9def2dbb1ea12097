#!/usr/bin/env bash
# Trains a language model on maths problems with ms-swift, vLLM and an estimator of credit, on GPUs.
#
# Install it from a checkout of this repository: `pip install ".[swift]" vllm deepspeed`.
#
#   MODEL=Qwen/Qwen2.5-0.5B-Instruct DATA=problems.jsonl bash examples/swift/train.sh
#   NPROC_PER_NODE=8 ... bash examples/swift/train.sh --deepspeed zero2
#   PLUGIN=my_credit.py ... bash examples/swift/train.sh --tuner_type lora --learning_rate 1e-5
#
# PLUGIN is the file that names the estimator; without it that is credit_plugin.py, with DGPO. All arguments
# are flags of ms-swift and come last, so that they win. The data are JSON lines such as
# {"messages": [{"role": "user", "content": "What is 12 + 30?"}], "solution": "42"}; the reward here compares
# the last number of a completion with that of the solution.
#
# Not run by this repository, which has no GPU: its tests run the same command on a CPU, without vLLM
# (train_on_cpu.py), and see that ms-swift has each flag of this file.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
: "${MODEL:?path or hub name of the model}" "${DATA:?JSON lines to train on}"

flags=(
    --rlhf_type grpo # the only type that has advantages
    --model "$MODEL" --use_hf true # from Hugging Face's hub; ms-swift's own default is ModelScope's
    --dataset "$DATA"
    --external_plugins "$here/reward.py" "${PLUGIN:-$here/credit_plugin.py}"
    --reward_funcs last_number_match # a name that reward.py gives

    # All weights train, and an estimator that compares has a frozen copy of the model as its reference. With
    # `--tuner_type lora` the reference is the model without its adapter, which takes no memory.
    --tuner_type full
    # Of the weights. In bfloat16 the neighbors of 0.02 are 1e-4 away, so that steps of 1e-6 are mostly lost
    # unless DeepSpeed keeps float32 weights beside these.
    --torch_dtype bfloat16

    --num_generations 8 # the completions of a prompt, which estimators compare
    --max_completion_length 2048
    --temperature 1.0 # ms-swift's default is 0.9; statistics are taken at the same temperature
    --loss_type grpo # the mean over the tokens of a completion, then over completions
    --beta 0 # no KL term; ms-swift's default is 0.04

    # A batch of 8 * 8 completions on each GPU, 8 of which are in a forward and backward at a time.
    --per_device_train_batch_size 8 --gradient_accumulation_steps 8
    --learning_rate 1e-6 --lr_scheduler_type constant_with_warmup --warmup_ratio 0.03
    --num_train_epochs 1

    # vLLM samples on the same GPUs. It takes this share of their memory, and frees it while the model trains.
    --use_vllm true --vllm_mode colocate --vllm_gpu_memory_utilization 0.4 --sleep_level 1
    --vllm_max_model_len 4096 # the longest prompt with its completion

    --logging_steps 1 --save_steps 50 --log_completions true
    --output_dir runs/swift
)
exec swift rlhf "${flags[@]}" "$@"
