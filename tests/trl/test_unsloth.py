"""Unsloth, which replaces TRL's trainer by a class that it generates.

Where it is installed, its own trainer and loss run on a CPU, in a process of their own. Elsewhere a class stands
in for the generated one, by what it is recognised by alone: what a loss of Unsloth's computes is not tested here.
"""

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import nullcontext as does_not_raise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOTrainer
from trl.trainer import grpo_trainer

from credit.adapters.trl import (
    CreditGRPOConfig,
    CreditGRPOTrainer,
    CreditMixin,
    losses,
    unsloth,
    unsloth_loss,
)

NOWHERE = "/nowhere/no-model"
GENERATED = """
UnslothEfficientGRPO = None
class _UnslothGRPOTrainer(GRPOTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs)
"""
NAMES = {"__name__": "UnslothGRPOTrainer", "GRPOTrainer": GRPOTrainer}
exec(GENERATED, NAMES)
Generated = NAMES["_UnslothGRPOTrainer"]


class Mixed(CreditMixin, Generated):
    """As CreditGRPOTrainer is where Unsloth was imported first."""


def run(*arguments, **environment):
    """Runs Python in a process that finds the modules beside this file; its output."""
    paths = [Path(__file__).parent, *map(Path, sys.path)]
    given = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | environment
    done = subprocess.run(
        [sys.executable, *arguments], env=given, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


needs_unsloth = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What unsloth_run.py found."""
    out = tmp_path_factory.mktemp("unsloth")
    code, said = run(
        str(Path(__file__).with_name("unsloth_run.py")),
        str(out),
        UNSLOTH_COMPILE_LOCATION=str(out / "generated"),
    )
    assert code == 0, said
    return json.loads((out / "found.json").read_text())


class TestInstalled:
    """With the real Unsloth."""

    pytestmark = needs_unsloth

    @pytest.mark.parametrize("shape", ["tokens", "rows"])
    def test_its_loss_and_gradient_are_those_of_float64(self, found, shape):
        assert found["bases"][1:4] == ["CreditMixin", "UnslothGRPOTrainer", "_UnslothGRPOTrainer"]
        assert set(found[shape]) == {"grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"}
        for kind, (loss, gradient) in found[shape].items():
            assert loss < 1e-5, kind
            assert gradient < 1e-5, kind

    def test_statistics_are_those_of_float64(self, found):
        assert max(found["statistics"].values()) < 1e-5

    @pytest.mark.parametrize("name", ["dgpo", "lora"])
    def test_dgpo_trains_and_starts_as_grpo(self, found, name):
        log = found[name]["log"]
        assert [entry["credit/deviation_max"] > 0 for entry in log] == [False, True, True]
        assert log[0]["credit/weight_std"] == 0
        assert log[0]["loss"] == pytest.approx(found["grpo"]["log"][0]["loss"], abs=1e-6)
        assert log[2]["loss"] != found["grpo"]["log"][2]["loss"]
        assert (len(found[name]["shape"]), len(found["grpo"]["shape"])) == (2, 1)

    def test_with_its_constants_training_is_unsloths_own(self, found):
        """Unsloth takes TRL's advantages."""
        for ours, theirs in zip(found["with its constants"]["log"], found["its own"]["log"], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
            assert not any(name.startswith("credit/") for name in theirs)

    def test_later_steps_on_a_batch_follow_the_policy_only_if_asked(self, found):
        kept, again = ([entry["loss"] for entry in found[name]["log"]] for name in ("kept", "reweighted"))
        assert kept[0] == again[0]
        assert abs(kept[1] - again[1]) > 1e-4

    def test_a_resumed_run_takes_the_same_steps(self, found):
        for ours, theirs in zip(found["resumed"]["log"], found["kept"]["log"], strict=True):
            assert (ours["loss"], ours["grad_norm"]) == (theirs["loss"], theirs["grad_norm"])

    @pytest.mark.parametrize("order", ["credit first", "trl first"])
    def test_the_order_of_imports_is_right_or_an_error(self, tmp_path, order):
        made = "print(CreditGRPOTrainer.__mro__[2]); CreditGRPOConfig(output_dir='.', bf16=False)"
        ours = "from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer"
        lines = {
            "credit first": [ours, "import unsloth_first", made],
            "trl first": ["import trl", "import unsloth_first", ours, made],
        }
        code, said = run("-c", "\n".join(lines[order]), UNSLOTH_COMPILE_LOCATION=str(tmp_path))
        if order == "credit first":
            assert "ImportError: GRPOTrainer comes from TRL's own trainer, which Unsloth has replaced" in said
        else:
            assert code == 0, said
            assert "UnslothGRPOTrainer.UnslothGRPOTrainer" in said


@pytest.mark.parametrize("kind", [GRPOTrainer, CreditGRPOTrainer])
def test_trls_own_trainer_is_not_taken_for_unsloths(kind):
    assert unsloth.find_trainer(kind) is None
    assert unsloth.find_trainer(Mixed) is Generated


def test_a_trainer_that_was_replaced_too_late_is_refused(make_trainer, monkeypatch):
    config = CreditGRPOConfig(output_dir=".", bf16=False, advantage_estimator="dgpo")
    monkeypatch.setattr(grpo_trainer, "GRPOTrainer", Generated)
    with pytest.raises(
        ImportError, match="CreditGRPOTrainer comes from TRL's own trainer.*Import unsloth before"
    ):
        CreditGRPOTrainer(NOWHERE, print, args=config)
    with pytest.raises(ImportError, match="^GRPOTrainer comes from TRL's own trainer.*Import unsloth before"):
        make_trainer("dgpo", model=NOWHERE)  # its config, which Unsloth's own trainer would fail at


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dynamic_sampling": "resample"}, "use dynamic_sampling='filter' with Unsloth"),
        (
            {"extra": {"peft_config": object()}},
            "Unsloth's trainer ignores peft_config.*get_peft_model returns",
        ),
        (
            {"importance_sampling_level": "sequence"},
            "_UnslothGRPOTrainer has one of its own; set importance_sampl",
        ),
    ],
    ids=str,
)
def test_options_that_it_cannot_have_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer("dgpo", kind=Mixed, model=NOWHERE, **settings)


def test_its_loss_takes_advantages_of_tokens_and_another_above_it_does_not(make_trainer):
    class Above(Mixed):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return super().compute_loss(model, inputs)

    assert losses.find_own_loss(Mixed) is None
    with pytest.raises(OSError, match="no-model"):
        make_trainer("dgpo", kind=Mixed, model=NOWHERE)
    with pytest.raises(ValueError, match="Above has a loss of its own"):
        make_trainer("dgpo", kind=Above, model=NOWHERE)


def test_images_are_refused_where_tokens_are_read_or_weighed(make_trainer):
    batch = {"pixel_values": torch.zeros(1)}
    with pytest.raises(ValueError, match="dgpo reads or weighs tokens, for which Unsloth's layout"):
        unsloth_loss.refuse_images(make_trainer("dgpo", kind=Mixed), batch)
    unsloth_loss.refuse_images(make_trainer("grpo", kind=Mixed), batch)
    unsloth_loss.refuse_images(make_trainer("dgpo"), batch)


@pytest.mark.parametrize("fault", [None, "ids", "mask", "advantages", "log_probs", "unused"])
def test_a_loss_that_is_given_something_else_is_an_error(make_trainer, monkeypatch, fault):
    """Whatever another release of Unsloth does: its loss gets what was laid out, or there is no step."""
    trainer = make_trainer("dgpo", kind=Mixed)
    trainer.credit.scored_step = 0
    completions = torch.tensor([[3, 4], [5, 0]])
    inputs = {
        "prompt_ids": torch.tensor([[0, 5, 6], [7, 8, 9]]),
        "completion_ids": completions,
        "completion_mask": (completions != 0).long(),
        "advantages": torch.tensor([[1.0, 2.0], [3.0, 0.0]]),
        unsloth_loss.OURS: torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]),
    }
    window = {
        "ids": torch.tensor([[3, 4, 0], [9, 5, 0]]),
        "mask": torch.tensor([[1, 1, 0], [0, 1, 0]]),
        "advantages": torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 0.0]]),
        "log_probs": torch.tensor([[-1.0, -2.0, -9.0], [-9.0, -3.0, -9.0]]),
    }
    if fault in window:
        window[fault][1, 1] += 1
    loss = SimpleNamespace(apply=lambda *_: "computed")
    monkeypatch.setitem(NAMES, unsloth.LOSS, loss)
    raised = {
        None: does_not_raise(),
        "log_probs": pytest.raises(RuntimeError, match="by 0.333 nats per token"),
    }
    with raised.get(fault, pytest.raises(RuntimeError, match="did not get each token's advantage")):  # noqa: SIM117
        with unsloth_loss.use_layout(trainer, inputs) as given:
            assert given["advantages"].tolist() == [[1.0, 2.0, 0.0], [0.0, 3.0, 0.0]]
            if fault != "unused":
                handed = [
                    window["log_probs"],
                    *[None] * 4,
                    window["ids"],
                    window["mask"],
                    window["advantages"],
                ]
                assert NAMES[unsloth.LOSS].apply(*handed) == "computed"
    assert NAMES[unsloth.LOSS] is loss


def test_a_trainer_without_an_estimator_gives_unsloth_what_trl_gives(make_trainer):
    inputs = {"advantages": torch.ones(2)}
    with unsloth_loss.use_layout(make_trainer(kind=Mixed), inputs) as given:
        assert given is inputs
