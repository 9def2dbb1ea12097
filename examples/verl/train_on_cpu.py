"""Trains a small language model with verl on a CPU; the model and its task are made on the spot.

    python examples/verl/train_on_cpu.py --estimator dgpo
    python examples/verl/train_on_cpu.py --estimator dapo trainer.total_training_steps=50

Further arguments are Hydra overrides and go before the defaults of this script. The whole of verl runs
(Ray, TransferQueue, agent loop, reward loop, FSDP2); what stands in for GPU and vLLM is in verl_on_cpu.
"""

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "trl"  # the small model and its tasks
sys.path.insert(0, str(TINY))

import arithmetic  # noqa: E402
import pandas as pd  # noqa: E402
import tiny_model  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

ESTIMATORS = sorted(path.stem for path in (HERE / "config").glob("*.yaml"))
OF_ESTIMATOR = {"dapo": {"reward.reward_kwargs.overlong_buffer_cfg.len": 4}}  # of 16 tokens
MODELS = ("actor_rollout_ref.actor", "actor_rollout_ref.ref")

OVERRIDES = {
    "data.train_batch_size": 16,
    "data.max_prompt_length": 32,
    "data.max_response_length": 16,
    "data.dataloader_num_workers": 0,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.actor.optim.lr": 2e-5,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 4096,
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": True,
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": 4096,
    "trainer.total_training_steps": 20,
    "trainer.logger": "[console,file]",
}
ON_CPU = {
    "trainer.device": "cpu",
    "trainer.n_gpus_per_node": 1,
    "trainer.nnodes": 1,
    "trainer.val_before_train": False,
    "trainer.test_freq": -1,
    "trainer.save_freq": -1,
    "trainer.resume_mode": "disable",
    "actor_rollout_ref.model.use_remove_padding": True,
    "actor_rollout_ref.model.enable_gradient_checkpointing": False,
    "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "actor_rollout_ref.rollout.name": "hf_cpu",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.n_gpus_per_node": "${trainer.n_gpus_per_node}",
    "actor_rollout_ref.rollout.agent.num_workers": 1,
    "actor_rollout_ref.rollout.calculate_log_probs": True,
    "actor_rollout_ref.rollout.free_cache_engine": False,
    "reward.num_workers": 1,
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    "ray_kwargs.ray_init.num_cpus": 12,
    "+ray_kwargs.ray_init.num_gpus": "${trainer.n_gpus_per_node}",
    "+ray_kwargs.ray_init.include_dashboard": False,
}
for model in MODELS:
    ON_CPU |= {
        f"{model}.strategy": "fsdp2",
        f"{model}.fsdp_config.model_dtype": "fp32",
        f"+{model}.fsdp_config.mixed_precision.param_dtype": "fp32",
        f"{model}.fsdp_config.use_torch_compile": False,
    }
ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "verl_on_cpu",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",  # else Ray starts a process for each CPU it is told of
}


def parse() -> tuple[argparse.Namespace, list[str]]:
    """This script's flags, and Hydra's overrides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--estimator", default="dgpo", choices=ESTIMATORS)
    parser.add_argument("--task", default="running_sums", choices=sorted(arithmetic.TASKS))
    parser.add_argument("--warm-up", type=float, default=0.3, help="sampled accuracy to start RL from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/verl", help="folder for model, data and log")
    return parser.parse_known_args()


def write_data(task: str, count: int, seed: int, path: Path) -> None:
    """Problems in the columns that verl reads, as parquet."""
    rows = [
        {
            "data_source": task,
            "prompt": [{"role": "user", "content": prompt}],
            "reward_model": {"style": "rule", "ground_truth": answer},
        }
        for prompt, answer in arithmetic.problems(task, count, seed)
    ]
    pd.DataFrame(rows).to_parquet(path)


def prepare(own: argparse.Namespace, output: Path) -> None:
    """The small model, warmed up, with a chat template that is the bare prompt, and its data."""
    model = output / "model"
    tiny_model.warm_up(own.task, str(model), own.warm_up, own.seed)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    # verl looks them up for Qwen's turns, of which there is one here; they never reach the model.
    tokenizer.add_tokens(["<|im_end|>", "\n"])
    tokenizer.save_pretrained(model)
    write_data(own.task, 2048, own.seed + 1, output / "train.parquet")
    write_data(own.task, 64, own.seed + 2, output / "val.parquet")


def main() -> None:
    """Makes model and data, and runs verl's own entry point on them."""
    own, given = parse()
    output = Path(own.output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    prepare(own, output)
    overrides = OVERRIDES | ON_CPU | OF_ESTIMATOR.get(own.estimator, {})
    overrides |= {
        "actor_rollout_ref.model.path": output / "model",
        "data.train_files": output / "train.parquet",
        "data.val_files": output / "val.parquet",
        "trainer.default_local_dir": output / "checkpoints",
        "hydra.run.dir": output / "hydra",
        "reward.custom_reward_function.path": HERE / "reward.py",
        "reward.custom_reward_function.name": "exact_match",
    }
    command = [sys.executable, "-m", "verl.trainer.main_ppo"]
    command += ["--config-dir", str(HERE / "config"), "--config-name", own.estimator]
    command += [f"{name}={value}" for name, value in overrides.items()]
    paths = [str(HERE), str(TINY), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "VERL_FILE_LOGGER_PATH": str(output / "log.jsonl"),
    }
    os.execve(sys.executable, [*command, *given], environment)


if __name__ == "__main__":
    main()
