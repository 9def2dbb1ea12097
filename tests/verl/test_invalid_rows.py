"""Responses without a finite reward: verl's own loss, and what it logs, are as without them."""

import math

import numpy as np
import pytest
import torch
from advantage_calls import MASKS, REJECTS, call, run_step, scores_of
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.metric_utils import compute_data_metrics
from verl.trainer.ppo.ray_trainer import RayPPOTrainer, compute_advantage

NAN, INF = float("nan"), float("inf")
MODES = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-sum-norm", "seq-mean-token-mean"]
GRPO = "algorithm.adv_estimator=credit_grpo"
OTHERS = [0, 1, 3]
REWARDS = [1.0, 0.0, NAN, 2.0]


def pad(rows):
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True)


def last(rewards):
    """The rewards on the last tokens of the masks' rows, as verl has them."""
    return [[0.0] * (len(row) - 1) + [reward] for row, reward in zip(MASKS, rewards, strict=True)]


def step(monkeypatch, configured, rewards, *overrides, far=()):
    """The batch of verl's queue after its own `_compute_advantage`, as padded tensors, and the metrics."""
    columns = scores_of(last(rewards))
    store, metrics = run_step(monkeypatch, configured, MASKS, far, columns, GRPO, *overrides)
    return (
        {name: pad(column.unbind()) for name, column in store.data.items() if name != "uid"},
        store,
        metrics,
    )


def gradient(advantages, mask, counted, aggregation, size):
    """Of verl's loss of all rows, by the counts that its workers take of a mini-batch."""
    shifted = torch.linspace(-0.1, 0.1, mask.numel()).view(mask.shape).requires_grad_()
    ratio = shifted.exp()
    losses = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    info = {"dp_size": 1, "batch_num_tokens": int(counted.sum()), "global_batch_size": size}
    core_algos.agg_loss(losses, mask.bool(), aggregation, loss_scale_factor=7, **info).backward()
    return shifted.grad


@pytest.mark.parametrize("strange", [NAN, INF])
@pytest.mark.parametrize("aggregation", MODES)
def test_the_gradient_of_verls_loss_is_that_without_the_row(monkeypatch, configured, aggregation, strange):
    option = f"actor_rollout_ref.actor.loss_agg_mode={aggregation}"
    rewards = [1.0, 0.0, strange, 2.0]
    data, _, metrics = step(monkeypatch, configured, rewards, option)
    assert data["response_mask"][2].tolist() == data["loss_mask"][2].tolist() == [0] * 6
    assert torch.equal(data["response_mask"][OTHERS], pad(MASKS)[OTHERS])
    ours = gradient(data["advantages"], data["response_mask"], data["loss_mask"], aggregation, 4)
    mask, index = pad(MASKS)[OTHERS], np.array(["p0", "p0", "p1"], dtype=object)
    plain, _ = call("grpo", pad(last(rewards))[OTHERS], mask, index)
    rows = torch.tensor(OTHERS)
    whole = torch.zeros(4, 6).index_copy(0, rows, plain), torch.zeros(4, 6).long().index_copy(0, rows, mask)
    expected = gradient(*whole, whole[1], aggregation, 3)
    torch.testing.assert_close(ours, expected)
    assert expected.abs().max() > 1e-3
    assert not ours[2].any()
    assert metrics["credit/invalid_rows"] == 1


def test_rejected_tokens_stay_rejected(monkeypatch, configured):
    data, _, _ = step(monkeypatch, configured, REWARDS, *REJECTS, far=[(0, 1)])
    assert data["response_mask"].tolist() == [
        [1, 0, 1, 0, 1, 1],
        [1, 1, 0, 1, 1, 1],
        [0] * 6,
        [1, 0, 1, 1, 0, 0],
    ]
    assert torch.equal(data["response_mask"], data["loss_mask"])


def test_verl_counts_the_row_as_padding_in_what_it_logs(monkeypatch, configured):
    data, store, _ = step(monkeypatch, configured, REWARDS)
    assert [tag.get("is_padding", False) for tag in store.tags] == [False, False, True, False]
    assert not data["advantages"][2].any()
    data, store, _ = step(monkeypatch, configured, [1.0, 0.0, 0.0, 2.0])
    assert not any(tag.get("is_padding", False) for tag in store.tags)
    assert "loss_mask" not in data  # verl's own masks are not touched without need


def legacy_batch(rewards):
    mask = pad(MASKS)
    tensors = {"response_mask": mask, "token_level_rewards": pad(last(rewards)), "responses": mask}
    tensors |= {"token_level_scores": tensors["token_level_rewards"], "prompts": mask}
    tensors["attention_mask"] = torch.ones(4, 12)
    uid = np.array(["p0", "p0", "p1", "p1"], dtype=object)
    return DataProto.from_dict(tensors, non_tensors={"uid": uid})


@pytest.mark.parametrize("aggregation", MODES)
def test_trainers_before_v1_leave_it_out_of_both_updates(monkeypatch, configured, aggregation):
    seen = []
    for name in ("_update_actor", "_update_critic"):
        monkeypatch.setattr(RayPPOTrainer, name, lambda self, batch: seen.append(batch.batch.clone()))
    config = configured(GRPO, f"actor_rollout_ref.actor.loss_agg_mode={aggregation}")
    trainer = object.__new__(RayPPOTrainer)
    trainer.config = config
    batch = compute_advantage(legacy_batch(REWARDS), "credit_grpo", config=config.algorithm)
    alone = batch.batch["advantages"].clone()
    trainer._update_critic(batch)
    trainer._update_actor(batch)
    critic, actor = seen
    for each in seen:
        assert each["response_mask"][2].tolist() == [0] * 6
        assert torch.equal(each["response_mask"][OTHERS], pad(MASKS)[OTHERS])
    assert torch.equal(critic["advantages"], actor["advantages"])  # scaled once
    ours = gradient(actor["advantages"], actor["response_mask"], actor["response_mask"], aggregation, 4)
    expected = gradient(alone, actor["response_mask"], actor["response_mask"], aggregation, 3)
    torch.testing.assert_close(ours, expected)
    metrics = compute_data_metrics(batch, use_critic=False)
    logged = {name: value for name, value in metrics.items() if "score" not in name and "rewards" not in name}
    assert all(math.isfinite(value) for value in logged.values())
    assert math.isnan(metrics["critic/score/mean"])  # verl's own, of all rows


def test_without_an_estimator_of_ours_verls_updates_are_its_own(configured):
    trainer = object.__new__(RayPPOTrainer)
    trainer.config = configured("algorithm.adv_estimator=grpo")
    assert not {"_update_actor", "_update_critic"} & vars(trainer).keys()
