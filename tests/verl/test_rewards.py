"""Rewards of tokens through verl's own functions, against them or float64."""

import logging

import by_hand
import numpy as np
import pytest
import torch
from advantage_calls import WIDTH, assert_equal, call, draw
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import apply_kl_penalty, compute_advantage

from credit.adapters.verl import rollouts


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_with_kl_in_the_reward_returns_to_go_equal_verls_own(seed, gamma):
    index, mask, drawn = draw(seed)
    last = (torch.arange(WIDTH) * mask).argmax(dim=1)
    scores = torch.zeros(mask.shape).scatter(1, last[:, None], drawn[:, :1])
    log_probs = {"old_log_probs": drawn - 3, "ref_log_prob": drawn.roll(1, 0) - 3}
    data = DataProto.from_dict(
        tensors={"token_level_scores": scores, "response_mask": mask, **log_probs}, non_tensors={"uid": index}
    )
    data, _ = apply_kl_penalty(data, core_algos.FixedKLController(0.05))
    found = {}
    settings_of = {"reinforce_plus_plus": {"gamma": gamma}}
    settings_of["credit_reinforce_plus_plus"] = {"credit": {"gamma": gamma}}
    for name, own in settings_of.items():
        config = OmegaConf.create(own)
        result = compute_advantage(data.select(), name, gamma=gamma, config=config)
        found[name] = (result.batch["advantages"], result.batch["returns"])
    theirs, ours = found.values()
    assert_equal(ours, theirs, mask)
    moved = call("reinforce_plus_plus", scores, mask, index, {"credit": {"gamma": gamma}})
    assert (moved[0] - ours[0]).abs().max() > 0.05  # the penalty matters


@pytest.mark.parametrize("seed", range(5))
def test_values_and_rewards_of_tokens_give_verls_gae(seed):
    index, mask, drawn = draw(seed)
    values = drawn.roll(1, 1)
    theirs = core_algos.compute_gae_advantage_return(drawn, values, mask.float(), 0.9, 0.8)
    chosen = {"credit": {"gamma": 0.9, "lam": 0.8}}
    assert_equal(call("gae", drawn, mask, index, chosen, **{"extra.values": values}), theirs, mask)


OPTIMAL = {
    "otb": core_algos.compute_optimal_token_baseline_advantage,
    "tir_otb": core_algos.compute_multi_turn_optimal_token_baseline_advantage,
}


@pytest.mark.parametrize("name", OPTIMAL)
@pytest.mark.parametrize("seed", range(5))
def test_rewards_of_tokens_give_verls_optimal_baselines(name, seed):
    index, mask, drawn = draw(seed, holes=name == "tir_otb")
    rng = np.random.default_rng(seed)
    shares = torch.from_numpy(rng.dirichlet(np.full(5, 0.5), size=mask.shape).astype(np.float32))
    log_probs, squares = shares[..., 0].log().clamp(min=-20), (shares**2).sum(dim=-1)
    theirs = OPTIMAL[name](
        drawn, mask.float(), index, old_log_probs=log_probs, sum_pi_squared=squares, epsilon=1e-12
    )
    fields = {"log_probs": log_probs, "extra.sum_squares": squares}
    assert_equal(call(name, drawn, mask, index, **fields), theirs, mask)


@pytest.mark.parametrize("name", ["mt_grpo", "process_grpo"])
@pytest.mark.parametrize("seed", range(5))
def test_turns_have_the_rewards_of_their_tokens(name, seed):
    index, mask, drawn = draw(seed)
    rewards = drawn * mask
    ours, _ = call(name, rewards, mask, index)
    expected = getattr(by_hand, name)(rewards.double().numpy(), mask, index)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_parts_of_a_mix_read_tokens_too_and_what_is_set_stays():
    index, mask, drawn = draw(0)
    parts = [[1.0, "grpo"], [2.0, {"name": "reinforce_plus_plus", "rewards_from": "response"}]]
    mixed, _ = call(
        "mix", drawn, mask, index, {"credit": {"parts": [parts[0], [2.0, "reinforce_plus_plus"]]}}
    )
    expected = call("grpo", drawn, mask, index)[0] + 2 * call("reinforce_plus_plus", drawn, mask, index)[0]
    torch.testing.assert_close(mixed, expected)
    summed, _ = call("mix", drawn, mask, index, {"credit": {"parts": parts}})
    assert (summed - mixed).abs().max() > 0.1


def test_rewards_that_no_token_of_the_mask_has_are_reported(caplog):
    index, mask, drawn = draw(0)
    rollouts._warn_of_lost_rewards.cache_clear()
    with caplog.at_level(logging.WARNING, "credit"):
        call("reinforce_plus_plus", drawn * mask, mask, index)
        assert not caplog.records
        for _ in range(2):
            call("reinforce_plus_plus", drawn, mask, index)
    (record,) = caplog.records
    assert "lie outside the response_mask" in record.getMessage()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_rewards_keep_their_digits_and_advantages_are_float32(dtype):
    gap = {torch.float64: 1e-8, torch.bfloat16: 2**-7}.get(dtype, 1)
    rewards = torch.zeros(4, 3, dtype=dtype)
    rewards[:, -1] = torch.tensor([1, 1, 1, 1 + gap], dtype=torch.float64).to(dtype)
    mask, index = torch.ones(4, 3).long(), np.array(["a"] * 4, dtype=object)
    advantages, returns = call("grpo", rewards, mask, index, {"credit": {"eps": 1e-12}})
    expected = torch.tensor([-0.5, -0.5, -0.5, 1.5])
    torch.testing.assert_close(advantages, expected[:, None].expand(4, 3), rtol=1e-3, atol=0)
    assert advantages.dtype == returns.dtype == torch.float32


def test_rewards_of_half_precision_are_added_up_in_float32():
    rewards = torch.full((2, 3), 0.0, dtype=torch.bfloat16)
    rewards[0], rewards[1, 0] = torch.tensor([256.0, 0.75, 0.5]).bfloat16(), 256.0
    index, mask = np.array(["a", "a"], dtype=object), torch.ones(2, 3).long()
    advantages, _ = call("dr_grpo", rewards, mask, index)
    assert advantages[0].tolist() == [0.625] * 3
