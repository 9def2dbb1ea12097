"""Two gloo processes of ms-swift's real command: with rows of their own, and with a part of every sequence."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import run_to_end
from swift_oracle import largest_gap, make_rollouts
from transformers import AutoModelForCausalLM

import credit

CLOSE = 2e-5
HERE = Path(__file__).parent
DGPO = credit.DGPO(tau=0.05)


@pytest.fixture
def train_on_two(command, tmp_path):
    """Runs the command on two processes and returns what each witnessed."""

    def run(plugin="swift_dgpo.py", **changed):
        folder = tmp_path / "witnessed"
        folder.mkdir()
        plugins = [HERE / name for name in ("swift_rewards.py", plugin, "swift_saving_witness.py")]
        given = command(external_plugins=plugins, use_cpu="true", ddp_backend="gloo", **changed)
        paths = os.pathsep.join(path for path in (str(HERE), *sys.path) if path)
        environment = os.environ | {"NPROC_PER_NODE": "2", "WITNESSED": str(folder), "PYTHONPATH": paths}
        run_to_end([str(Path(sys.executable).parent / "swift"), "rlhf", *given], environment, tmp_path)
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]

    return run


def join(models, first, second, shared=False):
    """One batch of those of two processes; where they share sequences, each has the rows of both."""

    def load(weights):
        model = AutoModelForCausalLM.from_pretrained(models / "model").double().eval()
        model.load_state_dict(weights)
        return model

    return SimpleNamespace(
        samples=first.samples + second.samples,
        grpo=first.grpo if shared else first.grpo + second.grpo,
        masks=first.masks if shared else first.masks + second.masks,
        rewards=first.rewards,
        policy=load(first.policy),
        reference=None if first.reference is None else load(first.reference),
    )


def test_a_group_may_lie_on_several_processes(train_on_two, models):
    """Two rows on each of two processes are one group of four."""
    first, second = train_on_two(
        per_device_train_batch_size=2, gradient_accumulation_steps=1, max_steps=3, beta=0
    )
    assert len(first["batches"]) == 3
    for own, others in zip(first["batches"], second["batches"], strict=True):
        assert len(own.samples) == 2
        assert largest_gap(DGPO, join(models, own, others)) < CLOSE
    assert torch.equal(first["weights"], second["weights"])
    assert first["logs"][0]["credit/deviation_max"] == 0.0
    assert first["logs"][2]["credit/weight_std"] > 0.1


def test_sequences_may_be_split_over_processes(train_on_two, models):
    """Ulysses on SDPA; rows of odd lengths are padded, so that each process has as many tokens.

    ms-swift's own log-probs are those of other tokens then, and its loss with them; here they are right.
    """
    first, second = train_on_two(sequence_parallel_size=2, max_steps=2, beta=0.04)
    odd = False
    for own, others in zip(first["batches"], second["batches"], strict=True):
        for mine, theirs in zip(own.grpo, others.grpo, strict=True):
            assert torch.equal(mine.advantages, theirs.advantages)
        batch = join(models, own, others, shared=True)
        assert largest_gap(DGPO, batch) < CLOSE
        rollouts = make_rollouts(batch)
        old = np.concatenate([each.old_per_token_logps[each.completion_mask] for each in batch.grpo])
        np.testing.assert_allclose(old, rollouts.log_probs[rollouts.mask], atol=1e-5)
        odd = odd or any(inputs["input_ids"].shape[1] % 2 for inputs in own.inputs)
    assert odd
    assert torch.equal(first["weights"], second["weights"])
    assert first["logs"][0]["credit/deviation_max"] == 0.0
    assert first["logs"][1]["credit/weight_std"] > 0.1
