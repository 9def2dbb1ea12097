"""Runs of verl's whole V1 pipeline, by the example's own command."""

import json
import math
import os
import sys
from pathlib import Path

import train_on_cpu
from commands import run_to_end

STEPS = 3
SMALL = [
    f"trainer.total_training_steps={STEPS}",
    "data.train_batch_size=4",
    "data.max_response_length=12",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.optim.lr=2e-3",
    f"reward.custom_reward_function.path={Path(__file__).with_name('witness.py')}",
    "reward.custom_reward_function.name=low_digits",
]


def run_training(folder, estimator, *overrides, **environment):
    """Trains by the example's command; the log of each step, and what was printed."""
    command = [sys.executable, train_on_cpu.__file__, "--estimator", estimator, "--warm-up", "0.0"]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command += ["--output", str(folder), *SMALL, *overrides]
    printed = run_to_end(command, os.environ | {"PYTHONPATH": paths} | environment, folder)
    lines = (folder / "log.jsonl").read_text().splitlines()
    log = [json.loads(line)["data"] for line in lines]
    assert len(log) == STEPS
    for entry in log:
        assert math.isfinite(entry["actor/pg_loss"])
        assert math.isfinite(entry["actor/grad_norm"])
    # In a step all groups may have equal rewards, which teach nothing.
    assert max(entry["actor/grad_norm"] for entry in log) > 0
    return log, printed


def with_agent_loop(folder, target):
    """Overrides by which an agent loop of the tests' own answers the prompts."""
    path = folder / "loop.yaml"
    path.write_text(f"- {{name: own, _target_: {target}}}")
    agent = "actor_rollout_ref.rollout.agent"
    return f"{agent}.agent_loop_config_path={path}", f"{agent}.default_agent_loop=own"
