"""Log-probs of the engine that sampled: where they come from, and tokens for which it gave none."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

import credit
from credit import lens

NAN, INF = float("nan"), float("inf")
LENGTH = 6
HOLE = 1  # the place of the token without a log-prob, between two tokens of the first turn
ENVIRONMENT = 3  # that of a token that the policy did not choose, between two turns
SEEN = []


class EngineSurprise(credit.Redistributing):
    """Reads the engine's log-probs and keeps the rollouts that it is given."""

    name: Literal["engine_surprise"] = "engine_surprise"

    @property
    def needs(self):
        return ("rollout_log_probs", "turns")

    def score(self, rollouts):
        SEEN.append(rollouts)
        return -rollouts.rollout_log_probs


class EngineGate(EngineSurprise):
    """The same, weighed by the policy's entropy, so that it can be computed anew."""

    name: Literal["engine_gate"] = "engine_gate"

    @property
    def needs(self):
        return (*super().needs, "normalized_entropy")

    def score(self, rollouts):
        return super().score(rollouts) * rollouts.normalized_entropy


class SumOfRewards(credit.Estimator):
    """Takes the rewards one by one, and no NaN among them."""

    name: Literal["sum_of_rewards"] = "sum_of_rewards"
    reward_weights: tuple[float, ...] | None = None

    def advantages(self, rollouts):
        return rollouts.rewards.sum(dim=1)


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


def rollout(log_prob):
    """A rollout_func whose every fourth completion, but the first, has `log_prob` at HOLE."""
    calls = iter(range(1000))

    def rollout_func(prompts, trainer):
        ids = [[3 + (next(calls) + k) % 10 for k in range(LENGTH - 1)] + [1] for _ in prompts]
        scores = [[-2.0 + k / 4 for k in range(LENGTH)] for _ in prompts]
        for row in range(1, len(prompts), 4):
            scores[row][HOLE] = log_prob
        return {
            "prompt_ids": trainer.processing_class(list(prompts))["input_ids"],
            "completion_ids": ids,
            "logprobs": None if log_prob is None else scores,
            "env_mask": [[int(k != ENVIRONMENT) for k in range(LENGTH)] for _ in prompts],
        }

    return {"rollout_func": rollout_func}


@pytest.mark.parametrize("log_prob", [NAN, INF])
def test_a_token_without_a_log_prob_is_left_out_and_splits_no_turn(train, log_prob):
    trainer, log = train(
        "engine_surprise", {"tau": 0.5, "within": "turn"}, extra=rollout(log_prob), max_steps=1
    )
    batch, seen = trainer._buffered_inputs[0], SEEN[-1]
    without = ~batch["sampling_per_token_logps"].isfinite()
    assert without.sum() == 2
    assert without[:, HOLE].sum() == 2
    assert (batch["completion_mask"] == 1).all()  # it still counts in TRL's loss
    assert not seen.mask[:, ENVIRONMENT].any()
    assert (seen.mask.sum(dim=1) == LENGTH - 1).sum() == 6
    assert (
        seen.turns[seen.mask] == (torch.arange(LENGTH) > ENVIRONMENT).expand_as(seen.mask)[seen.mask]
    ).all()
    advantages = batch["advantages"]
    assert advantages.isfinite().all()
    assert (advantages[without] == 0).all()
    row = advantages[without.any(dim=1)][0].double()
    spread = 2 * torch.softmax(torch.tensor([2.0, 1.5]).double() / 0.5, dim=0)  # of its first turn's others
    np.testing.assert_allclose(row[[0, 2]] / row[[4, 5]].mean(), spread, rtol=1e-4)
    assert log[0]["credit/unscored_tokens"] == 2
    documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    names = [name.removeprefix("credit/") for name in log[0] if name.startswith("credit/")]
    assert [name for name in names if f"`{name}`" not in documented] == []
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {"num_iterations": 2, "reweight_with_current_policy": True},
        {"dynamic_sampling": "resample", "record_steps": 1},
    ],
    ids=["reweighted", "resampled and recorded"],
)
def test_it_stays_out_wherever_the_batch_goes(train, tmp_path, settings):
    trainer, log = train("engine_gate", {"tau": 0.5}, extra=rollout(NAN), max_steps=2, **settings)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert all(np.isfinite(entry["grad_norm"]) for entry in log)
    assert {int(seen.mask.sum()) for seen in SEEN} == {8 * (LENGTH - 1) - 2}
    if "record_steps" in settings:
        lines = list(lens.read(tmp_path / "out/credit.jsonl"))
        assert sum(line.mask[HOLE] == 0 for line in lines) == 4


def test_estimators_that_read_no_log_probs_of_the_engine_see_every_token(train):
    trainer, log = train("dgpo", {"tau": 0.5}, extra=rollout(NAN), max_steps=1)
    assert "credit/unscored_tokens" not in log[0]
    batch = trainer._buffered_inputs[0]
    assert (batch["advantages"][:, HOLE] != 0).all()


def test_an_advantage_that_is_nan_is_an_error_before_it_reaches_the_model(make_trainer):
    def sometimes(completions, **_):
        return [None if place % 2 else 1.0 for place in range(len(completions))]

    def always(completions, **_):
        return [float(place) for place in range(len(completions))]

    trainer = make_trainer("sum_of_rewards", reward=[sometimes, always])
    with pytest.raises(ValueError, match="sum_of_rewards gave an advantage that is NaN"):
        trainer.train()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_a_rollout_func_without_log_probs_is_an_error_at_the_first_batch(make_trainer):
    trainer = make_trainer("engine_surprise", extra=rollout(None))
    with pytest.raises(ValueError, match="engine_surprise needs rollout_log_probs, .* as 'logprobs'"):
        trainer.train()


def test_no_engine_at_all_is_refused_before_a_model_is_loaded(make_trainer):
    for settings in ({}, {"use_transformers_continuous_batching": True}):  # which records none
        with pytest.raises(
            ValueError, match="set use_vllm=True, or give a rollout_func that returns logprobs"
        ):
            make_trainer("engine_surprise", model="no/model", **settings)
