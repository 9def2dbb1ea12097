"""Trains a small language model with OpenRLHF on a CPU; the model and its task are made on the spot.

    python examples/openrlhf/train_on_cpu.py --estimator dgpo
    python examples/openrlhf/train_on_cpu.py --estimator dapo --data.max_samples 200

OpenRLHF asks for flash-attn, which needs CUDA to be built; docs/openrlhf.md says how to install the rest.
Further arguments are OpenRLHF's flags and replace the defaults of this script. The whole of OpenRLHF runs
(Ray, DeepSpeed, its rollout workers and weight sync); what stands in for GPU and vLLM is in on_cpu.
"""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "trl"  # the small model and its tasks
ON_CPU = HERE / "on_cpu"
sys.path.insert(0, str(TINY))

import arithmetic  # noqa: E402
import tiny_model  # noqa: E402

ESTIMATORS = sorted(path.stem for path in (HERE / "estimators").glob("*.txt"))

FLAGS = """
    --data.input_key input --data.label_key label --data.max_len 48 --rollout.max_new_tokens 16
    --rollout.batch_size 16 --rollout.n_samples_per_prompt 8 --rollout.micro_batch_size 16
    --train.batch_size 128 --train.micro_batch_size 16 --data.max_samples 320
    --actor.adam.lr 2e-4 --actor.num_gpus_per_node 1 --vllm.num_engines 1 --ds.attn_implementation sdpa
"""
OF_ESTIMATOR = {"dapo": "--reward.overlong_buffer_len 4"}  # of 16 tokens
COMMAND = [sys.executable, "-m", "openrlhf_on_cpu"]  # then flags of OpenRLHF
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "REWARD": "exact_match",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",  # else Ray starts a process for each CPU it is told of
    "RAY_USAGE_STATS_ENABLED": "0",
}


def make_environment(*paths: str) -> dict[str, str]:
    """The environment in which COMMAND finds the stand-ins, with further paths to import from."""
    python_path = os.pathsep.join(path for path in (str(ON_CPU), *paths) if path)
    return os.environ | ENVIRONMENT | {"PYTHONPATH": python_path}


def parse() -> tuple[argparse.Namespace, list[str]]:
    """This script's flags, and OpenRLHF's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--estimator", default="dgpo", choices=ESTIMATORS)
    parser.add_argument("--task", default="running_sums", choices=sorted(arithmetic.TASKS))
    parser.add_argument("--warm-up", type=float, default=0.3, help="sampled accuracy to start RL from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/openrlhf", help="folder for model, data and results")
    return parser.parse_known_args()


def prepare(own: argparse.Namespace, output: Path) -> None:
    """The small model, warmed up, and its problems as JSON lines."""
    tiny_model.warm_up(own.task, str(output / "model"), own.warm_up, own.seed)
    problems = arithmetic.problems(own.task, 2048, own.seed + 1)
    lines = [json.dumps({"input": prompt, "label": answer}) for prompt, answer in problems]
    (output / "train.jsonl").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Makes model and data, and runs OpenRLHF's command on them."""
    own, given = parse()
    output = Path(own.output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    prepare(own, output)
    estimator = (HERE / "estimators" / f"{own.estimator}.txt").read_text()
    flags = shlex.split(FLAGS + estimator + OF_ESTIMATOR.get(own.estimator, ""), comments=True)
    flags += ["--actor.model_name_or_path", str(output / "model")]
    flags += ["--data.prompt_dataset", str(output / "train.jsonl")]
    flags += ["--reward.remote_url", str(HERE / "reward.py")]
    flags += ["--ckpt.output_dir", str(output / "trained"), "--ckpt.path", str(output / "checkpoints")]
    flags += ["--logger.tensorboard_dir", str(output / "tensorboard")]
    os.execve(sys.executable, [*COMMAND, *flags, *given], make_environment(os.environ.get("PYTHONPATH", "")))


if __name__ == "__main__":
    main()
