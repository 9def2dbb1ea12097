"""Estimators with slime's constants against slime's own baselines, which it computes before training."""

import numpy as np
import pytest
import slime_batch
import torch

import credit

CLOSE = 5e-6


def normalize(rewards, size, scale=True):
    """slime's rewards of grpo for whole groups: less their mean, over their deviation and 1e-6."""
    grouped = torch.tensor(rewards).reshape(-1, size)
    grouped = grouped - grouped.mean(dim=1, keepdim=True)
    if scale:
        grouped = grouped / (grouped.std(dim=1, keepdim=True) + 1e-6)
    return grouped.flatten().tolist()


@pytest.mark.parametrize(("name", "scale"), [("grpo", True), ("dr_grpo", False)])
def test_a_baseline_with_slimes_constants_is_slimes_own(megatron, name, scale):
    samples, models = slime_batch.make_samples(), slime_batch.make_models()
    ours = slime_batch.name_args(name, samples, {"preset": "slime"})
    found = slime_batch.assign(ours, models, samples)["advantages"]
    own = slime_batch.name_args("", samples, custom_advantage_function_path=None)
    normalized = normalize([sample["reward"] for sample in samples], slime_batch.GROUP, scale)
    theirs = [sample | {"reward": reward} for sample, reward in zip(samples, normalized, strict=True)]
    expected = slime_batch.assign(own, models, theirs)["advantages"]
    for row, (got, right, sample) in enumerate(zip(found, expected, samples, strict=True)):
        mask = torch.tensor(sample["mask"])  # outside of which slime's reach, and its loss reads none
        assert ((got - right) * mask).abs().max() < CLOSE, row


def test_a_group_of_one_and_equal_rewards_get_nothing():
    grpo = credit.get("grpo", preset="slime")
    alone = credit.Rollouts(np.array([2.0, 3.0, 3.0]), np.array([0, 1, 1]), np.ones((3, 2), bool))
    assert not grpo(alone).advantages.any()


def test_slime_without_credit_calls_nothing_of_it(megatron):
    samples = slime_batch.make_samples()
    args = slime_batch.name_args("", samples, custom_advantage_function_path=None)
    data = slime_batch.assign(args, slime_batch.make_models(), samples)
    assert not [name for name in data if name.startswith("credit/")]
    assert [each.unique().tolist() for each in data["advantages"]] == [[s["reward"]] for s in samples]
