"""Rows without a reward or without signal, several rewards, and the groups that dynamic sampling replaces."""

import numpy as np
import pytest
import torch
from swift_oracle import expected_advantages, found_advantages, largest_gap, make_rollouts

import credit

CLOSE = 2e-5
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo")


def rows_without_loss(batch):
    """Of each row, whether the loss counts none of its tokens."""
    return torch.cat([~each.completion_mask.any(dim=1) for each in batch.grpo]).tolist()


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_rows_without_a_reward_leave_group_and_loss(train, loss_type):
    witness = train(credit.DGPO(tau=0.05), reward_funcs="unscored", loss_type=loss_type, beta=0)
    for batch in witness.batches:
        missing = batch.rewards.isnan().all(dim=1).tolist()
        assert sum(missing) == 2
        assert rows_without_loss(batch) == missing
        rollouts = make_rollouts(batch)
        expected = expected_advantages(credit.DGPO(tau=0.05), rollouts)
        found = found_advantages(batch, expected.shape[1])
        assert np.abs(found - expected)[~np.array(missing)].max() < CLOSE
        counted = sum(int(each.completion_mask.sum()) for each in batch.grpo)
        assert all(int(each.num_items_in_batch) == counted for each in batch.grpo) == (counted > 0)
    assert witness.metric("credit/invalid_rows") == [2.0, 2.0]


def test_ms_swift_itself_takes_a_missing_reward_for_0(train):
    """What the rows above are refused for: 0 is the lowest reward here, and punished."""
    batch = train(reward_funcs="unscored", beta=0).batches[-1]
    missing = batch.rewards.isnan().all(dim=1)
    advantages = torch.cat([each.advantages[:, -1] for each in batch.grpo])
    assert (advantages[missing] < 0).all()
    assert not any(rows_without_loss(batch))


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_loss_is_a_mean_over_the_rows_that_stay(train, loss_type):
    """In the first step the ratio is 1, so that the loss is the mean of -A over what stays."""
    witness = train(credit.GRPO(), reward_funcs="unscored", loss_type=loss_type, beta=0, max_steps=1)
    batch, expected = witness.batches[0], 0.0
    rollouts = make_rollouts(batch)
    lengths = rollouts.mask.sum(axis=1)
    stays = ~batch.rewards.isnan().all(dim=1).numpy()
    advantages = credit.GRPO()(rollouts).advantages[:, 0]
    if loss_type == "grpo":
        expected = -advantages[stays].mean()
    elif loss_type == "dr_grpo":
        expected = -(advantages * lengths)[stays].sum() / (12 * stays.sum())
    elif loss_type == "dapo":
        expected = -(advantages * lengths)[stays].sum() / lengths[stays].sum()
    else:  # a mean over the tokens of each micro-batch
        halves = [slice(0, 4), slice(4, 8)]
        expected = np.mean(
            [-(advantages * lengths * stays)[half].sum() / (lengths * stays)[half].sum() for half in halves]
        )
    assert expected != pytest.approx(0.0, abs=1e-3) or loss_type == "grpo"
    assert np.mean(witness.losses) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_a_kl_term_keeps_its_weight_where_rows_leave(train, models, loss_type):
    """Without a learning rate the ratio stays 1, so that the loss is the mean of KL - A over what stays."""
    witness = train(
        "dapo",
        reward_funcs="constant",
        loss_type=loss_type,
        beta=1.0,
        ref_model=models / "reference",
        ref_model_type="qwen2",
        learning_rate=0,
        max_steps=4,
    )
    partial = 0
    for batch, losses in zip(witness.batches, np.reshape(witness.losses, (4, 2)), strict=True):
        stays = ~np.array(rows_without_loss(batch))
        if not stays.any():
            continue
        partial += not stays.all()
        rollouts = make_rollouts(batch)
        gap = rollouts.reference_log_probs - rollouts.log_probs
        kl = ((np.exp(gap) - gap - 1) * rollouts.mask)[stays].sum(axis=1)
        lengths = rollouts.mask.sum(axis=1)[stays]
        advantages = credit.GRPO()(rollouts).advantages[stays, 0]
        expected = {
            "grpo": (kl / lengths - advantages).mean(),
            "dr_grpo": (kl - advantages * lengths).sum() / (12 * stays.sum()),
            "dapo": (kl - advantages * lengths).sum() / lengths.sum(),
        }[loss_type]
        assert losses.mean() == pytest.approx(expected, abs=1e-5)
    assert partial


def test_groups_without_signal_leave_dapos_loss(train):
    witness = train("dapo", reward_funcs="constant", loss_type="dapo", beta=0, max_steps=4)
    dropped = [rows_without_loss(batch) for batch in witness.batches]
    assert any(any(rows) and not all(rows) for rows in dropped)
    for batch, rows in zip(witness.batches, dropped, strict=True):
        equal = batch.rewards.view(-1, 4).std(dim=1) == 0
        assert rows == equal.repeat_interleave(4).tolist()
    assert witness.metric("credit/dropped_groups") == [np.mean(rows) for rows in dropped]


@pytest.mark.parametrize("loss_type", [*LOSS_TYPES, "cispo"])
@pytest.mark.parametrize(("estimator", "reward"), [("dapo", "equal"), ("dgpo", "missing")])
def test_a_batch_without_any_row_in_the_loss_leaves_the_weights_finite(train, estimator, reward, loss_type):
    witness = train(estimator, reward_funcs=reward, loss_type=loss_type, beta=0)
    assert all(all(rows_without_loss(batch)) for batch in witness.batches)
    assert witness.metric("grad_norm") == [0.0, 0.0]
    assert witness.weights().isfinite().all()


def test_grpo_keeps_groups_without_signal(train):
    witness = train("grpo", reward_funcs="constant", beta=0, max_steps=4)
    assert not any(any(rows_without_loss(batch)) for batch in witness.batches)
    assert max(witness.metric("credit/zero_variance_groups")) > 0


def test_dynamic_sampling_replaces_groups_without_signal(train):
    estimator = credit.DGPO(tau=0.05)
    options = {"reward_funcs": "constant", "max_resample_times": 20, "beta": 0.04}
    witness = train(estimator, dynamic_sample="true", **options)
    for batch in witness.batches:
        assert (batch.rewards.view(-1, 4).std(dim=1) > 0).all()
        assert largest_gap(estimator, batch) < CLOSE


def test_dynamic_sampling_asks_the_estimators_own_reward(train):
    """Groups that vary only in the second function are replaced where the first decides."""
    options = {"reward_funcs": ["constant", "digits"], "max_resample_times": 20, "beta": 0}
    estimator = credit.get("dapo", filter_by=0)
    witness = train(estimator, dynamic_sample="true", **options)
    assert all((batch.rewards[:, 0].view(-1, 4).std(dim=1) > 0).all() for batch in witness.batches)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5]])
def test_gdpo_gets_the_rewards_of_each_function(train, weights):
    """Of the second function, None stays a missing reward among others."""
    given = weights or [1.0, 1.0]
    estimator = credit.get("gdpo")
    options = {} if weights is None else {"reward_weights": weights}
    witness = train(estimator, reward_funcs=["digits", "letters"], beta=0, **options)
    told = estimator.model_copy(update={"reward_weights": tuple(given)})
    for batch in witness.batches:
        assert batch.rewards.shape == (8, 2)
        assert largest_gap(told, batch) < CLOSE


def test_weights_of_rewards_in_the_sum(train):
    estimator = credit.DGPO(tau=0.05)
    witness = train(estimator, reward_funcs=["digits", "letters"], reward_weights=[1.0, 0.25], beta=0)
    for batch in witness.batches:
        total = np.nansum(batch.rewards.double().numpy() * [1.0, 0.25], axis=1)
        assert largest_gap(estimator, batch, rewards=total) < CLOSE
