#!/usr/bin/env bash
# Trains a language model with SkyRL, vLLM and an estimator of credit, on GPUs of one machine.
#
# Install it from a checkout of this repository, on Python 3.12: `pip install "skyrl[fsdp]<0.5" .`
#
#   MODEL=Qwen/Qwen2.5-1.5B-Instruct DATA=train.parquet GPUS=8 bash examples/skyrl/train.sh
#   ... bash examples/skyrl/train.sh trainer.algorithm.advantage_estimator=credit_rloo
#
# All arguments are SkyRL's options and come last, so that they win. The data are in SkyRL's format for the environment
# gsm8k: a `prompt` of messages, and a `reward_spec` with the `ground_truth`.
#
# Not run by this repository, which has no GPU: its tests run the same command on a CPU, with stand-ins for vLLM
# and flash-attn (train_on_cpu.py), and see that SkyRL's config takes each option of this file.
set -euo pipefail

: "${MODEL:?path or hub name of the model}" "${DATA:?parquet file to train on}" "${GPUS:=1}"

options=(
    trainer.override_entrypoint=credit.adapters.skyrl # credit's trainer, in SkyRL's own command
    # At 0.1 no difference from GRPO was found, and 0.05 was worse; docs/study.md says when DGPO pays.
    trainer.algorithm.advantage_estimator=credit_dgpo
    trainer.algorithm.credit.tau=0.1

    trainer.policy.model.path="$MODEL" # the reference is a frozen copy; trainer.ref.model.path names another
    data.train_data="['$DATA']"
    environment.env_class=gsm8k

    trainer.strategy=fsdp # where token statistics are computed
    trainer.placement.colocate_all=true
    trainer.placement.policy_num_gpus_per_node="$GPUS"
    trainer.placement.ref_num_gpus_per_node="$GPUS"
    generator.inference_engine.num_engines="$GPUS"
    generator.inference_engine.gpu_memory_utilization=0.7

    trainer.algorithm.use_kl_loss=false # SkyRL's default is true, with a reference worker of its own
    trainer.algorithm.loss_reduction=sequence_mean # the mean over the tokens of a response, then over responses
    trainer.policy.optimizer_config.lr=1e-6

    generator.n_samples_per_prompt=8 # the responses to a prompt, which estimators compare
    generator.sampling_params.temperature=1.0
    generator.sampling_params.max_generate_length=1024
    trainer.max_prompt_length=512
    trainer.train_batch_size=128
    trainer.policy_mini_batch_size=32
    trainer.micro_forward_batch_size_per_gpu=8
    trainer.micro_train_batch_size_per_gpu=8
    trainer.eval_interval=-1
    trainer.eval_before_train=false
    trainer.logger=console
)
exec python -m skyrl.train.entrypoints.main_base "${options[@]}" "$@"
