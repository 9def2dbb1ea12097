"""OpenRLHF's whole command with a user's agent of several turns: MT-GRPO, with no change to the agent."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from commands import run_to_end
from openrlhf_agents import compute_turns

from credit import lens

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "examples" / "openrlhf" / "train_on_cpu.py"
SAMPLES = 4
FLAGS = (
    "--estimator rloo --warm-up 0.0 --algo.advantage.estimator turns_witness --rollout.batch_size 4 "
    f"--credit.plugin {HERE / 'openrlhf_turns_witness.py'} --rollout.n_samples_per_prompt {SAMPLES} "
    "--rollout.micro_batch_size 4 --rollout.max_new_tokens 12 --train.batch_size 8 --train.micro_batch_size 4 "
    f"--data.max_samples 8 --actor.adam.lr 2e-3 --train.agent_func_path {HERE / 'openrlhf_turns_agent.py'} "
    "--credit.record_steps 1"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder with the batches and episodes of one run, and what it printed."""
    folder = tmp_path_factory.mktemp("agent")
    paths = [path for path in sys.path if path and Path(path) != HERE]  # the plugin is found by its path
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "WITNESS": str(folder)}
    command = [sys.executable, str(SCRIPT), *FLAGS.split(), "--output", str(folder)]
    printed = run_to_end(command, environment, folder)
    return folder, printed


def read_rows(folder, number):
    """The responses of a batch by their number: what their turns earned, their turns' sizes, their advantages."""
    end = tiny_model.EOS
    rows = {}
    for experience in torch.load(folder / f"batch_{number}.pt", weights_only=False):
        for i, sample in enumerate(experience["index"]):
            mask = experience["action_mask"][i].bool()
            told = json.loads((folder / f"episode_{int(experience['info']['episode'][i])}.json").read_text())
            # A turn that its budget did not end has an <eos>, and no other.
            ends = (experience["sequences"][i, 1:][mask] == end).nonzero()[:, 0] + 1
            places = sorted({0, *ends.tolist(), int(mask.sum())})
            sizes = np.diff(places).tolist()
            assert len(sizes) == len(told["earned"])
            assert experience["rewards"][i].item() == sum(told["earned"])
            rows[sample] = told | {"sizes": sizes, "advantages": experience["advantages"][i][mask]}
    return [rows[sample] for sample in sorted(rows)]


def test_an_ordinary_agent_trains_by_the_rewards_of_its_turns(trained):
    folder, printed = trained
    assert printed.count("OpenRLHF trains with turns_witness: ") == 1
    seen = {"turns": set(), "done": set()}
    for number in (1, 2):
        rows = read_rows(folder, number)
        assert len(rows) == 4 * SAMPLES
        for start in range(0, len(rows), SAMPLES):
            group = rows[start : start + SAMPLES]
            outcomes = [row["earned"][-1] if row["done"] else 0.0 for row in group]
            turns = [row["earned"][:-1] + [0.0 if row["done"] else row["earned"][-1]] for row in group]
            for row, expected in zip(group, compute_turns(outcomes, turns), strict=True):
                wanted = torch.tensor(np.repeat(expected, row["sizes"]))
                torch.testing.assert_close(row["advantages"].double(), wanted, rtol=1e-5, atol=1e-5)
                seen["turns"].add(len(row["sizes"]))
                seen["done"].add(row["done"])
        assert max(row["advantages"].abs().max() for row in rows) > 0.5
    assert seen == {"turns": {1, 2, 3}, "done": {True, False}}
    assert printed.count("'credit/unshared_turn_mean'") == 2


def test_records_tell_turns_and_what_the_environment_said(trained):
    folder, _ = trained
    lines = list(lens.read(folder / "trained/credit.jsonl"))
    assert [line.step for line in lines] == [1] * 4 * SAMPLES + [2] * 4 * SAMPLES
    rows = [row for number in (1, 2) for row in read_rows(folder, number)]
    heard = set()
    for line, row in zip(lines, rows, strict=True):
        chosen = np.array(line.mask, bool)
        turns = np.repeat(range(len(row["sizes"])), row["sizes"])
        assert np.array(line.turns)[chosen].tolist() == turns.tolist()
        assert np.array(line.advantages)[chosen].tolist() == pytest.approx(
            row["advantages"].tolist(), rel=1e-6
        )
        assert not np.array(line.advantages)[~chosen].any()
        heard.add("".join(np.array(line.tokens)[~chosen]))
    assert heard == {"", "+", "++"}  # the tokenizer has no "="
