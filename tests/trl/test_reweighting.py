"""Weights of tokens by the current policy, for steps on a batch after its first."""

from typing import Literal

import pytest
import torch

import credit

SETTINGS = {"num_iterations": 3, "max_steps": 3, "learning_rate": 3e-2}


def spied(
    make_trainer, monkeypatch, chosen=("dgpo", {"tau": 0.01}), spread=lambda weights: weights, **settings
):
    """Trains three steps on one batch; their advantages, and those by a plain forward of that moment."""
    trainer = make_trainer(*chosen, **(SETTINGS | settings))
    used, expected = [], []
    plain = trainer._get_per_token_logps_and_entropies

    def recorded(model, ids, *arguments, **named):
        if torch.is_grad_enabled():
            batch = trainer._buffered_inputs[0]
            expected.append(by_plain_forwards(trainer, batch, ids, spread))
        return plain(model, ids, *arguments, **named)

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", recorded)
    loss = type(trainer).__mro__[2]._compute_loss
    monkeypatch.setattr(
        type(trainer).__mro__[2],
        "_compute_loss",
        lambda self, model, inputs: used.append(inputs["advantages"]) or loss(self, model, inputs),
    )
    trainer.train()
    return used, expected, [entry for entry in trainer.state.log_history if "grad_norm" in entry]


@torch.no_grad()
def by_plain_forwards(trainer, batch, ids, spread):
    """The mean advantage of each row, spread over its tokens by a function of the softmax's weights."""
    mask = batch["completion_mask"]
    seen = torch.cat([batch["prompt_mask"], mask], dim=1)
    logits = [m(input_ids=ids, attention_mask=seen).logits[:, -mask.shape[1] - 1 : -1] for m in
              (trainer.model, trainer.ref_model)]  # fmt: skip
    statistics = credit.token_statistics(*logits, batch["completion_ids"], mask=mask)
    score = statistics.deviation * statistics.normalized_entropy
    weights = credit.tokens.redistribute(score, mask.bool(), 0.01)
    rows = batch["advantages"].sum(dim=1) / mask.sum(dim=1)
    return rows[:, None] * spread(weights)


def test_later_steps_on_a_batch_use_the_policy_of_their_time(make_trainer, monkeypatch):
    used, expected, log = spied(make_trainer, monkeypatch, reweight_with_current_policy=True)
    assert len(used) == 3
    for ours, theirs in zip(used, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert (used[1] - used[0]).abs().max() > 1e-2
    assert (used[2] - used[1]).abs().max() > 1e-2
    assert "credit/statistics_seconds" in log[2]


def test_each_part_of_a_mix_keeps_its_own_a_i(make_trainer, monkeypatch):
    parts = [[-0.25, {"name": "grpo", "correction": 0}], [0.75, {"name": "dgpo", "tau": 0.01}]]
    size = make_trainer().args.num_generations
    larger = (size / (size - 1)) ** 0.5  # A_i by the population's standard deviation, for one of the sample's
    mean = 0.75 - 0.25 * larger

    def spread(weights):
        return (0.75 * weights - 0.25 * larger * (weights > 0)) / mean

    chosen = ("mix", {"parts": parts})
    used, expected, _ = spied(make_trainer, monkeypatch, chosen, spread, reweight_with_current_policy=True)
    for ours, theirs in zip(used, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    assert (used[2] - used[0]).abs().max() > 1e-2


def test_by_default_the_weights_of_the_first_step_stay(make_trainer, monkeypatch):
    used, _, log = spied(make_trainer, monkeypatch)
    assert torch.equal(used[0], used[2])
    assert "credit/statistics_seconds" not in log[2]


def test_weights_that_are_not_the_whole_of_an_estimator_are_refused(make_trainer):
    class Doubled(credit.DGPO):
        name: Literal["doubled"] = "doubled"

        def assign(self, rollouts):
            advantages, weights = super().assign(rollouts)
            return 2.0 * advantages, weights

    with pytest.raises(ValueError, match="no use with doubled"):
        make_trainer("doubled", model="/nowhere", reweight_with_current_policy=True, num_iterations=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "grpo", "num_iterations": 2}, "no use with grpo"),
        ({"estimator": "top_entropy", "num_iterations": 2}, "no use with top_entropy"),
        (
            {"estimator": "mix", "kwargs": {"parts": [[1, "dgpo"], [1, "gtpo"]]}, "num_iterations": 2},
            "no use with mix",
        ),
        ({"estimator": "dgpo"}, "each batch serves a single step"),
    ],
)
def test_where_it_can_do_nothing_it_is_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(model="/nowhere", reweight_with_current_policy=True, **settings)
