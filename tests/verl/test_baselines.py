"""The baselines against verl's own functions, wherever a group has two responses and rewards that differ."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo import core_algos

import credit

CONFIG = OmegaConf.create({"gamma": 0.9, "norm_adv_by_std_in_grpo": True})
PAIRS = [
    ("grpo", {"preset": "verl"}, "compute_grpo_outcome_advantage"),
    ("rloo", {}, "compute_rloo_outcome_advantage"),
    ("opo", {}, "compute_opo_outcome_advantage"),
    ("gpg", {"preset": "verl"}, "compute_gpg_outcome_advantage"),
    ("pass_at_k", {"preset": "verl"}, "compute_grpo_passk_outcome_advantage"),
    ("reinforce_plus_plus", {"gamma": 0.9}, "compute_reinforce_plus_plus_outcome_advantage"),
    ("reinforce_plus_plus_baseline", {}, "compute_reinforce_plus_plus_baseline_outcome_advantage"),
    ("gdpo", {"preset": "verl"}, "compute_gdpo_outcome_advantage"),
    ("remax", {}, "compute_remax_outcome_advantage"),
]


def batch(seed):
    """12 responses of ragged groups; the reward lies on the last token, as verl's reward managers put it."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat([0, 1, 2, 3], [2, 3, 3, 4]))
    rewards = torch.from_numpy(rng.normal(size=12).astype(np.float32))
    rewards[0] = 0.0  # gpg counts these
    mask = torch.from_numpy(np.arange(7) < rng.integers(1, 8, 12)[:, None]).float()
    scores = torch.zeros(12, 7)
    scores[torch.arange(12), mask.sum(dim=1).long() - 1] = rewards
    return rewards, groups, mask, scores, torch.from_numpy(rng.normal(size=12).astype(np.float32))


@pytest.mark.parametrize(("name", "settings", "function"), PAIRS, ids=[name for name, *_ in PAIRS])
@pytest.mark.parametrize("seed", range(5))
def test_equals_verls_own(name, settings, function, seed):
    rewards, groups, mask, scores, greedy = batch(seed)
    theirs, _ = getattr(core_algos, function)(
        token_level_rewards=scores.clone(),
        response_mask=mask,
        index=groups.astype(str).astype(object),
        config=CONFIG,
        **({"reward_baselines": greedy} if name == "remax" else {}),
    )
    rollouts = credit.Rollouts(rewards, torch.from_numpy(groups), mask, baseline_rewards=greedy)
    ours = credit.get(name, **settings)(rollouts).advantages
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs * mask, rtol=1e-5, atol=3e-6)


def test_elsewhere_ours_is_zero_and_verls_keeps_the_reward_or_a_rounding():
    """In groups of one, and of equal rewards, as docs/verl.md says."""
    rewards = torch.tensor([0.5, *[2.1] * 8, 1.0, 0.0])
    groups, mask = np.array([0, *[1] * 8, 2, 2]), torch.ones(11, 1)
    alpha = 11 / 10
    for name, kept in {"grpo": 0.5 / (1 + 1e-6), "rloo": 0.5, "opo": 0.5, "gpg": alpha * 0.5}.items():
        function = getattr(core_algos, f"compute_{name}_outcome_advantage")
        index = groups.astype(str).astype(object)
        theirs, _ = function(
            token_level_rewards=rewards[:, None].clone(), response_mask=mask, index=index, config=CONFIG
        )
        ours = credit.get(name, preset="verl")(credit.Rollouts(rewards, torch.from_numpy(groups), mask))
        assert theirs[0].item() == pytest.approx(kept, rel=1e-6)
        assert (theirs[1:9].abs().max() > 0.1) == (name == "grpo")
        assert (ours.advantages[:9] == 0).all()
        torch.testing.assert_close(ours.advantages[9:], theirs[9:], rtol=1e-5, atol=3e-6)


# --- rewards of tokens, in float64 -----------------------------------------------------------------------


def long_batch(seed, holes):
    """12 responses with a reward on every token and what verl's estimators read; groups of two or more."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat([0, 1, 2, 3], [2, 3, 3, 4]))
    mask = np.arange(9) < rng.integers(1, 10, 12)[:, None]
    if holes:
        mask[:, 1:] &= rng.random((12, 8)) < 0.7
    drawn = {name: torch.from_numpy(rng.normal(size=(12, 9))) for name in ("token_rewards", "values")}
    return groups, torch.from_numpy(mask), drawn


def per_token(groups, mask, token_rewards, **fields):
    """Rollouts whose rewards lie on tokens alone; the response's own is wrong, and must not be read."""
    wrong = torch.full((len(mask),), 1e3, dtype=torch.float64)
    return credit.Rollouts(wrong, torch.from_numpy(groups), mask, token_rewards=token_rewards, **fields)


def assert_equal_on_the_mask(ours, theirs, mask):
    assert ours.abs().max() > 0.1
    assert (ours[~mask] == 0).all()
    torch.testing.assert_close(ours, theirs * mask, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_gae_equals_verls_own(seed, holes):
    groups, mask, drawn = long_batch(seed, holes)
    theirs = core_algos.compute_gae_advantage_return(
        token_level_rewards=drawn["token_rewards"],
        values=drawn["values"],
        response_mask=mask.double(),
        gamma=0.9,
        lam=0.8,
    )
    rollouts = per_token(groups, mask, drawn["token_rewards"], extra={"values": drawn["values"]})
    estimator = credit.GAE(gamma=0.9, lam=0.8, rewards_from="tokens")
    for ours, other in zip(
        (estimator(rollouts).advantages, estimator.returns(rollouts)), theirs, strict=True
    ):
        assert_equal_on_the_mask(ours, other, mask)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_returns_to_go_of_tokens_equal_verls_own(seed, holes):
    groups, mask, drawn = long_batch(seed, holes)
    theirs = core_algos.compute_reinforce_plus_plus_outcome_advantage(
        token_level_rewards=drawn["token_rewards"], response_mask=mask.double(), config=CONFIG
    )
    estimator = credit.ReinforcePlusPlus(gamma=CONFIG.gamma, rewards_from="tokens")
    rollouts = per_token(groups, mask, drawn["token_rewards"])
    for ours, other in zip(
        (estimator(rollouts).advantages, estimator.returns(rollouts)), theirs, strict=True
    ):
        assert_equal_on_the_mask(ours, other, mask)


OPTIMAL = [
    ("otb", False, "compute_optimal_token_baseline_advantage"),
    ("tir_otb", False, "compute_multi_turn_optimal_token_baseline_advantage"),
    ("tir_otb", True, "compute_multi_turn_optimal_token_baseline_advantage"),
]


@pytest.mark.parametrize("zero_tail", [False, True])
@pytest.mark.parametrize(("name", "holes", "function"), OPTIMAL)
@pytest.mark.parametrize("seed", range(5))
def test_optimal_baselines_equal_verls_own(name, holes, function, zero_tail, seed):
    groups, mask, drawn = long_batch(seed, holes)
    probabilities = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(5, 0.3), size=(12, 9)))
    log_probs, squares = probabilities[..., 0].log(), (probabilities**2).sum(dim=-1)
    theirs, returns = getattr(core_algos, function)(
        token_level_rewards=drawn["token_rewards"],
        response_mask=mask.double(),
        index=groups,
        old_log_probs=log_probs,
        sum_pi_squared=squares,
        handle_zero_tail=zero_tail,
        epsilon=1e-15,  # ours is 0, and W may be small
    )
    rollouts = per_token(
        groups, mask, drawn["token_rewards"], log_probs=log_probs, extra={"sum_squares": squares}
    )
    estimator = credit.get(name, zero_tail=zero_tail, rewards_from="tokens")
    assert_equal_on_the_mask(estimator(rollouts).advantages, theirs, mask)
    assert_equal_on_the_mask(estimator.returns(rollouts), returns, mask)
