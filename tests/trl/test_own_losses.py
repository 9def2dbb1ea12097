"""Trainers whose loss is not GRPOTrainer's: one advantage per completion as from TRL, or a refusal."""

import random
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from trl import GRPOTrainer
from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

import credit
from credit.adapters.trl import CreditGRPOConfig, CreditGRPOTrainer, CreditMixin

NOWHERE = "/nowhere/no-model"
TRL = {"preset": "trl"}


@dataclass
class Config(GMPOConfig, CreditGRPOConfig):
    """GMPO's clip range, and the settings of credit."""


class Trainer(CreditMixin, GMPOTrainer):
    """GMPO with an estimator."""


class Declared(Trainer):
    """Says that its loss takes advantages of tokens."""

    takes_token_advantages = True


class Above(CreditGRPOTrainer):
    """A loss of the user's own, above the mixin."""

    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, inputs)


class Outer(CreditMixin, GRPOTrainer):
    """As Unsloth's trainer, which replaces the method that calls the loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class LateLast(credit.GRPO):
    """Tells tokens apart in completions of more than four tokens, which trying it does not show."""

    name: Literal["late_last"] = "late_last"

    def weights(self, rollouts, advantages):
        return rollouts.mask * (1.0 + (torch.arange(rollouts.mask.shape[1]) > 4))


def completions_of(width):
    """Completions of random digits, some of which end early."""

    def roll(prompts, trainer):
        rng, ids = random.Random(0), []
        for place in range(len(prompts)):
            length = width if place % 4 else width - 2
            ids.append([*(rng.randint(3, 12) for _ in range(length - 1)), 1])
        return {
            "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": ids,
            "logprobs": [[-2.5] * len(row) for row in ids],
        }

    return roll


GMPO = {"kind": Trainer, "config": Config, "num_iterations": 3, "max_steps": 3, "learning_rate": 3e-2}


@pytest.mark.parametrize("width", [12, 8])  # of 8 rows
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_gmpo_with_grpo_is_trls_step_by_step(train, width, beta):
    settings = GMPO | {"beta": beta, "extra": {"rollout_func": completions_of(width)}}
    own = {"advantage_estimator": "grpo", "advantage_estimator_kwargs": TRL}
    ours, log = train(**settings, **own)
    assert ours._buffered_inputs[0]["advantages"].shape == (8,)
    assert ours.args.epsilon == 0.4
    _, expected = train(**settings | {"kind": GMPOTrainer, "config": GMPOConfig})
    assert expected[2]["clip_ratio/region_mean"] > 0
    for name in ("loss", "grad_norm", "clip_ratio/region_mean"):
        assert [e[name] for e in log] == pytest.approx([e[name] for e in expected], abs=2e-6), name


def test_an_estimator_that_weighs_whole_completions_trains_gmpo(train):
    trainer, log = train(**GMPO, advantage_estimator="grpo_s")
    assert trainer._buffered_inputs[0]["advantages"].ndim == 1
    assert log[0]["grad_norm"] > 0


@pytest.mark.parametrize(("kind", "named"), [(Trainer, "GMPOTrainer"), (Above, "Above"), (Outer, "Outer")])
def test_token_advantages_are_refused_by_other_losses_before_loading(make_trainer, kind, named):
    message = (
        f"dgpo gives the tokens of a completion different advantages, .* and {named} has a loss of its own.*"
        f"set takes_token_advantages = True in the class {kind.__name__}"
    )
    settings = {"kind": kind, "config": Config, "model": NOWHERE}
    with pytest.raises(ValueError, match=message):
        make_trainer(advantage_estimator="dgpo", **settings)
    uniform = {"advantage_estimator": "dgpo", "advantage_estimator_kwargs": {"tau": 1e9}}
    again = {"reweight_with_current_policy": True, "num_iterations": 2}
    with pytest.raises(ValueError, match=f"{named} has a loss of its own"):
        make_trainer(**uniform, **again, **settings)


def test_a_loss_that_is_declared_to_take_them_gets_them(make_trainer):
    trainer = make_trainer(kind=Declared, config=Config, advantage_estimator="dgpo")
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert inputs["advantages"].shape == inputs["completion_ids"].shape

    class Again(Declared):
        def _compute_loss(self, model, inputs):
            raise NotImplementedError

    with pytest.raises(ValueError, match="Again has a loss of its own"):
        make_trainer(kind=Again, config=Config, model=NOWHERE, advantage_estimator="dgpo")


def test_tokens_that_differ_against_expectation_are_an_error_at_the_first_batch(train):
    with pytest.raises(ValueError, match="late_last gives the tokens of a completion different advantages"):
        train(**GMPO, advantage_estimator="late_last")
    trainer, _ = train("late_last", max_steps=1)
    assert trainer._buffered_inputs[0]["advantages"].ndim == 2


def test_the_separate_loss_of_liger_is_given_one_advantage_per_completion(make_trainer, monkeypatch):
    monkeypatch.setattr(GRPOTrainer, "compute_liger_loss", None, raising=False)  # as in TRL up to 1.13
    settings = {"use_liger_kernel": True, "model": NOWHERE}
    with pytest.raises(
        ValueError, match="dgpo .* use_liger_kernel=True takes one per completion.*leave it out"
    ):
        make_trainer("dgpo", **settings)
    with pytest.raises(OSError, match="no-model"):
        make_trainer("grpo", **settings)


def test_the_outputs_of_tools_hide_no_advantage(train):
    """The first token of a row, and every token of one row, are not the policy's."""

    def roll(prompts, trainer):
        given = completions_of(9)(prompts, trainer)
        masks = [[place > 1 and place != 4 for place, _ in enumerate(ids)] for ids in given["completion_ids"]]
        return given | {"env_mask": [[0] * 7, *masks[1:]]}

    trainer, _ = train("grpo", max_steps=1, extra={"rollout_func": roll})
    used, logged = trainer._buffered_inputs[0]["advantages"], torch.tensor(trainer._logs["advantages"])
    assert used.shape == (8,)
    torch.testing.assert_close(used.sort().values, logged.sort().values)
    assert (used == 0).sum() == 1
