"""A run that dies and is taken up again from its checkpoint does what an unbroken one does."""

import inspect
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import GRPOTrainer

FEW = Dataset.from_dict({"prompt": [f"{number}>" for number in range(6)]})  # three steps an epoch


class Death(Exception):
    pass


def watched(seen, dies_at=None):
    """A reward whose groups vary for odd prompts only; it notes the prompts, and fails in that call."""

    def half(prompts, completions, **_):
        if len(seen) == dies_at:
            raise Death
        seen.append(list(prompts))
        pairs = zip(prompts, completions, strict=True)
        return [len(set(text)) / 8 if int(prompt[-2]) % 2 else 0.5 for prompt, text in pairs]

    return half


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "dgpo", "kwargs": {"tau": 0.01}},
        {"estimator": "dapo", "dynamic_sampling": "resample"},
        pytest.param(
            {"estimator": "dgpo", "dynamic_sampling": "resample", "steps_per_generation": 4},
            marks=pytest.mark.releases,
        ),
        {"estimator": "grpo", "num_iterations": 2},
        {"estimator": "grpo", "dataset": FEW, "save_steps": 4},
    ],
    ids=["plain", "resample", "resample-inside-a-batch", "inside-a-batch", "second-epoch"],
)
def test_a_resumed_run_takes_the_same_steps(make_trainer, tmp_path, settings):
    settings = {"max_steps": 7, "save_strategy": "steps", "save_steps": 3} | settings
    unbroken, seen = steps(make_trainer, settings)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(Death):
        steps(make_trainer, settings, dies_at=len(seen) - 1)
    checkpoint = max((tmp_path / "out").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    done = int(checkpoint.name.split("-")[1])
    assert 0 < done < 7
    torch.manual_seed(99)
    resumed, later = steps(make_trainer, settings, resume=str(checkpoint))
    assert len(resumed) == 7 - done
    assert later == seen[len(seen) - len(later) :]
    for (ours, advantages), (theirs, expected) in zip(resumed, unbroken[done:], strict=True):
        for name in ("loss", "grad_norm", "reward" if "reward" in ours else "loss"):
            assert ours[name] == theirs[name], name
        np.testing.assert_array_equal(advantages, expected)


def steps(make_trainer, settings, dies_at=None, resume=None):
    """The log and the advantages of every step, and the prompts of every generation."""
    seen, used = [], []
    settings = dict(settings)
    trainer = make_trainer(settings.pop("estimator"), reward=watched(seen, dies_at), **settings)
    loss = trainer._compute_loss

    def recorded(model, inputs):
        used.append(inputs["advantages"].numpy())
        return loss(model, inputs)

    trainer._compute_loss = recorded
    trainer.train(resume_from_checkpoint=resume)
    log = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    return list(zip(log[-len(used) :], used, strict=True)), seen


def test_a_reference_that_followed_the_policy_is_reported_as_lost(make_trainer, tmp_path):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "sync_ref_model": True}
    make_trainer("dgpo", **settings).train()
    with pytest.warns(UserWarning, match="do not contain a reference that follows the policy"):
        make_trainer("dgpo", **settings).train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-1"))


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_get_train_sampler", ["self", "dataset"]),
        ("_save_rng_state", ["self", "output_dir"]),
        ("_load_optimizer_and_scheduler", ["self", "checkpoint"]),
    ],
)
def test_the_hooked_signatures_are_those_known(method, parameters):
    assert list(inspect.signature(getattr(GRPOTrainer, method)).parameters) == parameters


def test_a_checkpoint_without_our_state_is_reported(make_trainer, tmp_path):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "dynamic_sampling": "resample"}
    make_trainer("dapo", **settings).train()
    checkpoint = tmp_path / "out/checkpoint-1"
    Path(checkpoint / "credit_state_0.pt").unlink()
    with pytest.warns(UserWarning, match=r"has no credit_state_0\.pt"):
        make_trainer("dapo", **settings).train(resume_from_checkpoint=str(checkpoint))


def test_a_batch_of_another_size_is_not_taken_up(make_trainer, tmp_path):
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "num_iterations": 2}
    make_trainer("grpo", **settings).train()
    other = settings | {"per_device_train_batch_size": 4}
    with pytest.warns(UserWarning, match="batches differ in size"):
        make_trainer("grpo", **other).train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-1"))
