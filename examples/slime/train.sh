#!/usr/bin/env bash
# Trains a language model on maths problems with slime, SGLang and an estimator of credit, on the GPUs of one node.
#
# Install credit in slime's environment, from a checkout of this repository:
# `pip install --no-deps . array-api-compat`.
#
#   SLIME=../slime MEGATRON=../Megatron-LM SIZES=qwen3-4B HF=Qwen3-4B REF=Qwen3-4B_torch_dist \
#       DATA=problems.jsonl bash examples/slime/train.sh
#   GPUS=4 CONFIG=my_credit.yaml ... bash examples/slime/train.sh --n-samples-per-prompt 16
#
# SLIME and MEGATRON are checkouts, SIZES is the name of a file in slime's scripts/models, HF the model for
# SGLang and its tokenizer, and REF the checkpoint for Megatron, with which policy and reference begin
# (slime's quick start converts one). The data are JSON lines with "prompt" and "label". CONFIG is the file
# that names the estimator; without it that is credit.yaml, with DGPO. All arguments are flags of slime and
# come last, so that they win.
#
# Not run by this repository, which has no GPU: its tests call the same functions on a CPU (on_cpu.py), and see
# that slime's parser has each flag of this file where slime is there.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
: "${SLIME:?a checkout of slime}" "${MEGATRON:?one of Megatron-LM}" "${SIZES:?a name in scripts/models}"
: "${HF:?a folder with the model}" "${REF:?a folder with the checkpoint}" "${DATA:?JSON lines to train on}"
gpus=${GPUS:-8}
# Absolute, since slime's command runs in slime's folder.
config=$(realpath "${CONFIG:-$here/credit.yaml}") megatron=$(realpath "$MEGATRON")
hf=$(realpath "$HF") ref=$(realpath "$REF") data=$(realpath "$DATA")
source "$SLIME/scripts/models/$SIZES.sh" # MODEL_ARGS

flags=(
    --custom-config-path "$config" # all that concerns the estimator

    --hf-checkpoint "$hf" --ref-load "$ref" --load runs/slime --save runs/slime --save-interval 20
    --prompt-data "$data" --input-key prompt --label-key label --apply-chat-template --rollout-shuffle
    --rm-type math # slime's comparison of the boxed answer with the label

    --num-rollout 500
    --rollout-batch-size 32 --n-samples-per-prompt 8 # the samples of a prompt, which estimators compare
    --global-batch-size 128 # two steps of the optimizer per batch
    --rollout-max-response-len 8192
    --rollout-temperature 1 # statistics are taken at the same temperature

    --advantage-estimator grpo # with a function for advantages it says which loss: that of clipped ratios
    --eps-clip 0.2 --eps-clip-high 0.28
    --optimizer adam --lr 1e-6 --lr-decay-style constant --weight-decay 0.1 --adam-beta1 0.9 --adam-beta2 0.98

    --tensor-model-parallel-size 2 --sequence-parallel
    --use-dynamic-batch-size --max-tokens-per-gpu 9216 --balance-data
    --recompute-granularity full --recompute-method uniform --recompute-num-layers 1
    --attention-dropout 0 --hidden-dropout 0
    --accumulate-allreduce-grads-in-fp32 --attention-softmax-in-fp32 --attention-backend flash

    --actor-num-nodes 1 --actor-num-gpus-per-node "$gpus" --colocate
    --rollout-num-gpus-per-engine 2 --sglang-mem-fraction-static 0.7
)

cd "$SLIME"
ray start --head --num-gpus "$gpus" --disable-usage-stats
environment="{\"env_vars\": {\"PYTHONPATH\": \"$megatron\", \"CUDA_DEVICE_MAX_CONNECTIONS\": \"1\"}}"
exec ray job submit --address http://127.0.0.1:8265 --runtime-env-json "$environment" \
    -- python3 train.py "${MODEL_ARGS[@]}" "${flags[@]}" "$@"
