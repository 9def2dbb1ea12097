"""The two commands of a user: TRL's script with our trainer, and the demo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gsm8k
import pytest
import trl
from accelerate.commands.config.config_args import load_config_from_file
from trl import TrlParser
from trl.scripts import grpo

import credit.adapters.trl.__main__ as command
from credit.adapters.trl import CreditGRPOConfig
from credit.lens.prompts import read_prompts

ROOT = Path(__file__).parents[2]


def run(arguments, folder):
    environment = {"PYTHONPATH": f"{ROOT}:{folder}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


CONFIG = """
model_name_or_path: {model}
dtype: float32
datasets:
  - path: json
    data_files: {data}
reward_funcs: [my_rewards.low_digits]
output_dir: {out}
use_cpu: true
bf16: false
gradient_checkpointing: false
max_steps: 2
num_generations: 4
per_device_train_batch_size: 4
max_completion_length: 8
logging_steps: 1
save_strategy: steps
save_steps: 2
report_to: none
learning_rate: 1.0e-2
advantage_estimator: dgpo
advantage_estimator_kwargs:
  tau: 0.5
  kappa: 0.0
"""


def test_help_answers_and_an_unknown_flag_is_an_error(monkeypatch, capsys, tmp_path):
    started = []
    monkeypatch.setattr(grpo, "main", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(trl, "GRPOTrainer", trl.GRPOTrainer)
    monkeypatch.setattr(sys, "argv", ["credit.adapters.trl", "--help"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
    assert "--advantage_estimator_kwargs" in capsys.readouterr().out
    known = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    monkeypatch.setattr(sys, "argv", ["credit.adapters.trl", *known, "--advantage_estimatr", "dgpo"])
    with pytest.raises(ValueError, match="--advantage_estimatr"):
        command.main()
    assert not started
    monkeypatch.setattr(sys, "argv", ["credit.adapters.trl", *known, "--advantage_estimator", "dgpo"])
    command.main()
    assert started


DDP = str(ROOT / "examples/trl/accelerate/ddp.yaml")
ON_CPU = ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
LAUNCHERS = {
    "python": ["-m"],
    "accelerate": ["-m", "accelerate.commands.launch", "--config_file", DDP, *ON_CPU, "-m"],
}


@pytest.mark.parametrize("launcher", ["python", pytest.param("accelerate", marks=pytest.mark.slow)])
def test_trls_script_takes_the_estimator_from_yaml_and_flags(model_path, tmp_path, launcher):
    (tmp_path / "my_rewards.py").write_text(
        "def low_digits(completions, **_):\n    return [sum(c < '5' for c in t) / 8 for t in completions]\n"
    )
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i}>"}) + "\n" for i in range(64)))
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG.format(model=model_path, data=data, out=tmp_path / "out"))
    flags = ["--config", str(config), "--advantage_estimator_kwargs", '{"tau": 0.25}']
    run([*LAUNCHERS[launcher], "credit.adapters.trl", *flags], tmp_path)
    state = json.loads((tmp_path / "out/checkpoint-2/trainer_state.json").read_text())
    steps = [entry for entry in state["log_history"] if "grad_norm" in entry]
    assert [entry["credit/deviation_max"] for entry in steps][0] == 0.0
    assert steps[1]["credit/deviation_mean"] > 0
    assert steps[1]["credit/gate_mean"] < 1.0  # the flag replaced the file's settings, kappa = 0 among them


@pytest.mark.parametrize("task", ["running_sums", pytest.param("addition_chain", marks=pytest.mark.slow)])
def test_the_demo_runs_and_leaves_a_plot(tmp_path, task):
    flags = ["--warm-up", "0.0", "--max_steps", "2", "--eval-size", "8", "--task", task]
    flags += [
        "--output",
        str(tmp_path / "run"),
        "--per_device_train_batch_size",
        "16",
        "--logging_steps",
        "1",
    ]
    printed = run([str(ROOT / "examples/trl/train.py"), *flags], tmp_path)
    assert "sampled" in printed
    assert "weight_std" in printed
    assert (tmp_path / "run/training.png").read_bytes().startswith(b"\x89PNG")
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert any("credit/deviation_mean" in entry for entry in log)
    assert (tmp_path / "run/trained/config.json").exists()
    held_out = read_prompts(tmp_path / "run/held-out.jsonl")  # what the lens shows the model on
    assert all({"prompt", "answer"} == set(line) for line in held_out)


@pytest.fixture
def on_your_model(model_path, tmp_path):
    """The command that trains a model on 40 rows of data from disk."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i}>", "answer": f"{i}"}) + "\n" for i in range(40)))
    flags = ["--model", model_path, "--dataset", str(data), "--use_cpu", "true", "--bf16", "true"]
    flags += ["--max_steps", "1", "--max_completion_length", "4", "--output", str(tmp_path / "run")]
    return [str(ROOT / "examples/trl/train.py"), *flags]


def test_the_same_script_trains_float32_weights_of_your_model(on_your_model, tmp_path):
    run([*on_your_model, "--eval-size", "8"], tmp_path)
    assert json.loads((tmp_path / "run/trained/config.json").read_text())["dtype"] == "float32"


@pytest.mark.slow
def test_data_that_are_all_held_out_are_refused(on_your_model, tmp_path):
    with pytest.raises(AssertionError, match="has 40 rows, all of them held out; lower --eval-size"):
        run(on_your_model, tmp_path)


@pytest.mark.parametrize("name", ["one_gpu", "ddp", "zero3", "fsdp2"])
def test_the_examples_configs_are_accelerates(name):
    path = ROOT / f"examples/trl/accelerate/{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.num_processes == (1 if name == "one_gpu" else 8)
    assert config.mixed_precision == "bf16"


def test_the_gpu_example_settings_are_ours_and_trls():
    flags = ["--config", str(ROOT / "examples/trl/gsm8k.yaml"), "--use_cpu", "true", "--bf16", "false"]
    parser = TrlParser((CreditGRPOConfig, gsm8k.Model))
    config, model = parser.parse_args_and_config(flags)
    assert config.statistics_memory_mb is None
    assert config.advantage_estimator_kwargs == {"tau": 0.1}
    assert model.model_name_or_path == "Qwen/Qwen2.5-0.5B-Instruct"
    with pytest.raises(ValueError, match="use_peft"):  # which the script would not act on
        parser.parse_args_and_config([*flags, "--use_peft", "true"])
