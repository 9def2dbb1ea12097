"""Rewards and states of turns, before verl rejects tokens, through verl's own trainer."""

import logging

import numpy as np
import pytest
import torch
from advantage_calls import LAST, MASKS, MT_GRPO, NAMED, REJECTS, call, draw, train_step
from omegaconf import OmegaConf
from tensordict import NonTensorStack
from verl.protocol import DataProto
from verl.trainer.ppo.ray_trainer import RayPPOTrainer, compute_advantage

import credit
from credit.adapters.verl import extra, turns


def test_rewards_of_rejected_tokens_count_for_those_before_them():
    before = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 1, 0]]).bool()
    kept = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]).bool()
    rewards = torch.tensor([[1.0, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32]])
    numbers = credit.tokens.turns(before)
    assert turns.move_rejected(rewards, before, kept).tolist() == [
        [3, 0, 0, 56, 0, 0],
        [0, 0, 12, 0, 0, 0],
        [1, 26, 0, 0, 0, 0],
    ]
    assert turns.move_rejected(rewards, before, kept, numbers)[2].tolist() == [1, 2, 0, 0, 0, 0]
    assert turns.spread_ends(rewards.long(), before)[0].tolist()[:2] == [2, 2]
    assert turns.spread_ends(rewards.long(), before)[0].tolist()[3:] == [32, 32, 32]


def test_turns_are_those_before_rejection(monkeypatch, configured):
    """Row 0 has two turns; were a rejected token a tool's, it would have three."""
    found, _ = train_step(monkeypatch, configured, MASKS, [(0, 1)], dict(LAST), *MT_GRPO)
    plain, _ = train_step(monkeypatch, configured, MASKS, [], dict(LAST), *MT_GRPO)
    plain[0][1] = 0.0
    for own, other in zip(found, plain, strict=True):
        torch.testing.assert_close(own, other)
    assert plain[0][5] > plain[0][0] > 0.5  # the reward is the second turn's


@pytest.mark.parametrize("name", ["reinforce_plus_plus", "mt_grpo", "process_grpo"])
def test_the_reward_of_a_rejected_last_token_is_not_lost(monkeypatch, configured, name):
    given = [f"algorithm.adv_estimator=credit_{name}", *REJECTS]
    found, _ = train_step(monkeypatch, configured, MASKS, [(0, 5)], dict(LAST), *given)
    index = np.array(["p0", "p0", "p1", "p1"], dtype=object)
    rewards, mask = (torch.zeros(4, 6, dtype=kind) for kind in (torch.float32, torch.long))
    for row, (own, last) in enumerate(zip(MASKS, (4, 5, 3, 3), strict=True)):
        mask[row, : len(own)] = torch.tensor(own)
        rewards[row, last] = (1.0, 0.0, 0.0, 2.0)[row]
    mask[0, 5] = 0  # as if the reward had lain on the token before it
    expected, _ = call(name, rewards, mask, index)
    for row, own in enumerate(found):
        torch.testing.assert_close(own, expected[row, : len(own)])
    assert found[0][0].abs() > 0.1


@pytest.mark.parametrize("source", ["turn_scores", "tool_rewards"])
def test_scores_of_an_agent_loop_are_read_by_name(monkeypatch, configured, source):
    fields = [{source: row} for row in ([1.0, 0.0], [3.0, 0.5], [0.25], [])]
    columns = {**LAST, "extra_fields": NonTensorStack(*fields)}
    given = [*MT_GRPO, f"+algorithm.credit.token_rewards={source}"]
    found, _ = train_step(monkeypatch, configured, MASKS, [(0, 2)], columns, *given)
    outcome = np.array([1, -1, -1, 1]) / np.sqrt(2)
    first, second = np.array([-1, 1, 1, -1]) / np.sqrt(2), np.array([-1, 1, 0, 0]) / np.sqrt(2)
    for row, own in enumerate(found):
        assert own[0] == pytest.approx(outcome[row] + first[row], abs=1e-4)
        assert own[-1] == pytest.approx(
            outcome[row] + (second if row < 2 else first)[row] * (row != 3), abs=1e-4
        )


def test_scores_that_an_estimator_of_turns_does_not_read_are_reported(monkeypatch, configured, caplog):
    extra._report_unread.cache_clear()
    columns = {**LAST, "extra_fields": NonTensorStack(*[{"tool_rewards": [1.0], "turn_scores": []}] * 4)}
    with caplog.at_level(logging.WARNING, "credit"):
        for _ in range(2):
            train_step(monkeypatch, configured, MASKS, [], dict(columns), *MT_GRPO)
        given = ["algorithm.adv_estimator=credit_reinforce_plus_plus"]
        train_step(monkeypatch, configured, MASKS, [], dict(columns), *given)
    (message,) = [record.getMessage() for record in caplog.records if "agent loop" in record.getMessage()]
    assert "credit_mt_grpo reads" in message
    assert "token_rewards=tool_rewards" in message


def test_batches_without_calls_of_tools_have_no_rewards_of_them(monkeypatch, configured):
    columns = {**LAST, "extra_fields": NonTensorStack(*[{"tool_rewards": []}] * 4)}
    given = [*MT_GRPO, "+algorithm.credit.token_rewards=tool_rewards"]
    found, _ = train_step(monkeypatch, configured, MASKS, [], columns, *given)
    assert found[0][0] == pytest.approx(np.sqrt(0.5), abs=1e-4)
    columns = {**LAST, "extra_fields": NonTensorStack(*[{"turn_scores": []}] * 4)}
    with pytest.raises(ValueError, match="which no row of this batch has"):
        train_step(
            monkeypatch,
            configured,
            MASKS,
            [],
            columns,
            *given[:-1],
            given[-1].replace("tool_rewards", "turn_scores"),
        )


def test_states_are_those_at_the_ends_of_turns_before_rejection(monkeypatch, configured):
    states = [[0, 0, 7, 0, 0, 8], [0, 7, 0, 0, 0, 9], [0, 0, 0, 7], [7, 0, 0, 8]]
    columns = {**LAST, "extra_fields": NonTensorStack(*[{"states": row} for row in states])}
    given = ["algorithm.adv_estimator=credit_gigpo", *REJECTS]
    found, _ = train_step(monkeypatch, configured, MASKS, [(0, 2)], dict(columns), *given)
    plain, _ = train_step(monkeypatch, configured, MASKS, [], dict(columns), *given)
    plain[0][2] = 0.0
    for own, other in zip(found, plain, strict=True):
        torch.testing.assert_close(own, other)
    assert plain[0][0] != plain[0][5]


def test_outside_of_v1_turns_after_rejection_are_refused():
    index, mask, drawn = draw(1)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": drawn, "response_mask": mask}, non_tensors={"uid": index}
    )
    config = {"rollout_correction": {"rollout_rs": "token_k1"}}
    with pytest.raises(ValueError, match="credit_mt_grpo needs turns, .* use a V1 trainer"):
        compute_advantage(data, "credit_mt_grpo", config=OmegaConf.create(config))
    compute_advantage(data, "credit_mt_grpo", config=OmegaConf.create({"rollout_correction": {}}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (MT_GRPO, "credit_mt_grpo needs turns, .* use a V1 trainer"),
        (["algorithm.adv_estimator=credit_gdpo", NAMED], "credit_gdpo needs several rewards, which .*use_v1"),
        ([*MT_GRPO, "+algorithm.credit.token_rewards=tool_rewards"], "credit_mt_grpo needs tool_rewards"),
    ],
)
def test_trainers_before_v1_refuse_what_they_do_not_hand_over(configured, overrides, message):
    trainer = object.__new__(RayPPOTrainer)
    with pytest.raises(ValueError, match=message):
        trainer.config = configured(*overrides)
