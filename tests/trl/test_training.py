"""TRL's real trainer, training with credit's estimators."""

import math
from typing import Literal

import given_rows
import numpy as np
import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

import credit
from credit.adapters import table
from credit.adapters.trl import CreditGRPOTrainer, CreditMixin
from credit.adapters.trl.hooks import FRAMEWORK

TRL = {"preset": "trl"}


def close(ours, theirs, name, tolerance):
    return all(abs(a[name] - b[name]) <= tolerance for a, b in zip(ours, theirs, strict=True))


PARTS = {"mix": {"parts": [[0.7, {"name": "grpo"}], [0.3, {"name": "dgpo", "tau": 0.01}]]}}


FED = [name for name, each in table.list_estimators().items() if not table.list_missing(FRAMEWORK, each)]


def logged(completions, completion_ids, log_extra, **_):
    """A reward that varies, and all arrays that users give by name."""
    for name, rows in given_rows.make_rows(completion_ids).items():
        log_extra(name, rows)
    return [sum(c in "01234" for c in text) / max(len(text), 1) for text in completions]


@pytest.mark.parametrize("name", [*FED, "mix"])
def test_trains_for_several_steps_and_logs(train, name):
    trainer, log = train(name, PARTS.get(name), reward=logged)
    assert len(log) == 3
    for entry in log:
        assert math.isfinite(entry["loss"])
        assert entry["grad_norm"] > 0
        assert {"credit/weight_std", "credit/effective_token_fraction"} <= set(entry)
    assert trainer._buffered_inputs[0]["advantages"].ndim == (1 if trainer.credit_estimator.is_uniform else 2)


def test_a_log_of_several_batches_has_the_least_minimum_and_the_largest_maximum(train):
    _, every = train("dgpo", {"tau": 0.01}, max_steps=2)
    _, (both,) = train("dgpo", {"tau": 0.01}, max_steps=2, logging_steps=2)
    assert every[0]["credit/advantage_max"] != every[1]["credit/advantage_max"]
    for name, combine in (("advantage_min", min), ("weight_max", max), ("advantage_std", np.mean)):
        values = [entry[f"credit/{name}"] for entry in every]
        assert both[f"credit/{name}"] == pytest.approx(combine(values), abs=1e-7)


@pytest.mark.releases
def test_dgpo_starts_as_grpo_and_then_departs(train):
    _, grpo = train("grpo")
    _, dgpo = train("dgpo", {"tau": 0.01})
    assert dgpo[0]["credit/deviation_max"] == 0.0
    assert dgpo[0]["credit/weight_std"] == 0.0
    assert dgpo[0]["loss"] == grpo[0]["loss"]
    assert dgpo[0]["grad_norm"] == grpo[0]["grad_norm"]
    assert dgpo[0]["credit/kl_mean"] == 0.0 < dgpo[1]["credit/kl_mean"]
    assert 0.0 < abs(dgpo[1]["credit/drift_alignment"]) <= 1.0
    # TRL's own is that of the loss's pass over the same batch.
    assert dgpo[0]["credit/entropy_mean"] == pytest.approx(dgpo[0]["entropy"], rel=1e-5)
    assert not {"credit/kl_mean", "credit/entropy_mean", "credit/drift_alignment"} & set(grpo[0])
    assert dgpo[1]["credit/deviation_mean"] > 0
    assert dgpo[2]["credit/weight_std"] > 0.1
    assert dgpo[2]["grad_norm"] != grpo[2]["grad_norm"]


@pytest.mark.releases
def test_the_preset_reproduces_trls_own_grpo(train):
    _, ours = train("grpo", TRL)
    _, theirs = train(kind=GRPOTrainer, config=GRPOConfig)
    for name in ("loss", "grad_norm", "reward", "entropy"):
        assert close(ours, theirs, name, 1e-6), name


@pytest.mark.releases
def test_the_preset_reproduces_trls_luspo(train):
    settings = {"loss_type": "luspo", "importance_sampling_level": "sequence", "max_steps": 2}
    _, ours = train("grpo", TRL, **settings)
    _, theirs = train(kind=GRPOTrainer, config=GRPOConfig, **settings)
    assert close(ours, theirs, "grad_norm", 1e-5)


def advantages(trainer):
    """TRL's completions table: one advantage per completion of the last generation."""
    return np.asarray(trainer._logs["advantages"])


def test_advantages_equal_trls_where_rewards_differ_and_are_zero_elsewhere(train):
    def flat_in_some_groups(prompts, completions, **_):
        pairs = zip(prompts, completions, strict=True)
        return [0.7 if prompt[0] in "02468" else len(set(text)) / 8 for prompt, text in pairs]

    settings = {"reward": flat_in_some_groups, "per_device_train_batch_size": 32, "max_steps": 1}
    ours, log = train("grpo", TRL, **settings)
    theirs, _ = train(kind=GRPOTrainer, config=GRPOConfig, **settings)
    rewards = np.asarray(ours._logs["rewards"]["flat_in_some_groups"]).reshape(-1, 4)
    flat = (rewards.max(axis=1) == rewards.min(axis=1)).repeat(4)
    assert flat.any()
    assert not flat.all()
    assert abs(advantages(ours) - advantages(theirs))[~flat].max() <= 1e-6
    assert (advantages(ours)[flat] == 0).all()
    assert abs(advantages(theirs))[flat].max() < 1e-3  # a rounding, as docs/trl.md says
    assert log[0]["credit/zero_variance_groups"] == pytest.approx(flat.mean())


@pytest.mark.releases
def test_without_an_estimator_the_path_is_trls(train):
    ours, ours_log = train()
    theirs, theirs_log = train(kind=GRPOTrainer, config=GRPOConfig)
    assert ours.ref_model is None
    assert ours._buffered_inputs[0]["advantages"].ndim == 1
    for a, b in zip(ours_log, theirs_log, strict=True):
        assert (a["loss"], a["grad_norm"]) == (b["loss"], b["grad_norm"])


@pytest.mark.releases
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_row_and_token_advantages_give_the_same_loss(make_trainer, level):
    trainer = make_trainer("grpo")
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    per_row = inputs["advantages"]
    trainer.importance_sampling_level = level
    losses = {}
    for loss_type in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"):
        trainer.loss_type = loss_type
        trainer.epsilon_high = 5.0 if loss_type == "cispo" else 0.28
        pair = []
        for form in (per_row, per_row[:, None].expand_as(inputs["completion_mask"])):
            trainer.model.zero_grad()
            loss = trainer._compute_loss(trainer.model, inputs | {"advantages": form})
            loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
            pair.append((loss.item(), gradient))
        # The two forms add float32 numbers in different orders.
        assert pair[0][0] == pytest.approx(pair[1][0], rel=1e-6, abs=1e-7), loss_type
        assert torch.allclose(pair[0][1], pair[1][1], atol=1e-6), loss_type
        assert pair[0][1].abs().max() > 0
        losses[loss_type] = pair[0][1]
    assert not torch.allclose(losses["grpo"], losses["dapo"])


def test_gradient_accumulation_gives_the_whole_batchs_gradient(train):
    _, whole = train("dgpo", {"tau": 0.01}, per_device_train_batch_size=16)
    _, parts = train("dgpo", {"tau": 0.01}, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    assert parts[0]["grad_norm"] == pytest.approx(whole[0]["grad_norm"], rel=1e-5)
    assert parts[1]["grad_norm"] == pytest.approx(whole[1]["grad_norm"], rel=1e-3)
    assert parts[2]["credit/weight_std"] > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"num_iterations": 2, "max_steps": 4},
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2},
        {"mask_truncated_completions": True},
        {"beta": 0.04},
        {"temperature": 0.7},
        {"gradient_checkpointing": True},
        {"bf16": True},
        {"loss_type": "dr_grpo", "top_entropy_quantile": 0.5},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_trls_options_keep_working(train, settings):
    trainer, log = train("dgpo", {"tau": 0.01}, **settings)
    assert all(math.isfinite(entry["loss"]) and math.isfinite(entry["grad_norm"]) for entry in log)
    assert all(getattr(trainer.args, name) == value for name, value in settings.items())
    assert trainer.beta == settings.get("beta", 0.0)
    assert ("kl" in log[-1]) == ("beta" in settings)


def test_evaluation_logs_under_eval(make_trainer):
    trainer = make_trainer("dgpo", per_device_eval_batch_size=4)
    metrics = trainer.evaluate(trainer.train_dataset.select(range(4)))
    assert metrics["eval_credit/deviation_max"] == 0.0


def test_a_row_without_a_reward_leaves_the_batch(train):
    calls = []

    def first_is_unscored(completions, **_):
        calls.append(len(completions))
        return [None, *(len(set(text)) / 8 for text in completions[1:])]

    trainer, log = train("grpo", reward=first_is_unscored, max_steps=1, loss_type="dapo")
    rewards = np.asarray(trainer._logs["rewards"]["first_is_unscored"])
    expected = credit.GRPO()(credit.Rollouts(rewards[1:4], np.zeros(3, int), np.ones((3, 1), bool)))
    assert np.allclose(advantages(trainer)[1:4], expected.advantages[:, 0], atol=1e-5)
    assert advantages(trainer)[0] == 0
    assert log[0]["credit/invalid_rows"] == 1
    batch = trainer._buffered_inputs[0]
    assert (batch["completion_mask"].sum(dim=1) == 0).sum() == 1
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()


def test_the_mixin_extends_a_users_trainer(train):
    class Users(GRPOTrainer):
        def _calculate_rewards(self, *arguments):
            return super()._calculate_rewards(*arguments) + 1.0

    class Mine(CreditMixin, Users):
        pass

    trainer, log = train("dgpo", kind=Mine)
    assert not isinstance(trainer, CreditGRPOTrainer)
    assert log[0]["reward"] >= 1.0
    assert log[2]["credit/deviation_mean"] > 0


def test_a_schedule_follows_the_training(train):
    _, log = train("dgpo", {"kappa": {"start": 0.0, "end": 4.0}}, max_steps=4)
    gates = [entry["credit/gate_mean"] for entry in log]
    assert gates[0] == 1.0
    assert gates == sorted(gates, reverse=True)
    assert gates[3] < 0.97


def test_a_target_fraction_is_met(train):
    _, log = train("dgpo", {"effective_fraction": 0.5, "tau_min": 1e-9})
    assert log[2]["credit/effective_token_fraction"] == pytest.approx(0.5, abs=0.05)
    assert log[2]["credit/reached_fraction_mean"] == pytest.approx(0.5, abs=0.05)
    assert log[0]["credit/within_floor_mean"] == 1  # the policy is its reference still


def test_a_users_estimator_trains_by_its_name(train):
    class OfEntropy(credit.Redistributing):
        name: Literal["of_entropy"] = "of_entropy"

        @property
        def needs(self):
            return ("normalized_entropy", *self.turn_fields)

        def score(self, rollouts):
            return rollouts.normalized_entropy

    trainer, log = train("of_entropy", {"tau": 0.01})
    assert trainer.ref_model is None
    assert log[0]["credit/weight_std"] > 0.01
