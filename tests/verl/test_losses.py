"""The losses and rollout weights of PolicyLoss against verl's own functions, in float64."""

import pytest
import torch
from verl.trainer.ppo import core_algos, rollout_corr_helper
from verl.workers.config.actor import ActorConfig, PolicyLossConfig

from credit import PolicyLoss

N, T = 12, 9
COVARIANCES = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1, "clip_cov_ub": 0.9, "kl_cov_ratio": 0.2}
SAPO = {"objective": "sapo", "temperature_positive": 2.0, "temperature_negative": 3.0}
CLIP_COV = {"objective": "clip_cov", "covariance_low": 0.1, "covariance_high": 0.9}
# By verl's name; verl's own loss has a dual clip, and DPPO a cap on the ratio, which both are clip_ratio_c.
LOSSES = {
    "vanilla": {"dual_clip": 1.5},
    "gspo": {"ratio": "sequence"},
    "cispo": {"objective": "cispo"},
    "sapo": SAPO,
    "geo_mean": {"objective": "gmpo"},
    "dppo_tv": {"objective": "dppo_tv", "ratio_cap": 1.5},
    "dppo_kl": {"objective": "dppo_kl", "ratio_cap": 1.5},
    "clip_cov": CLIP_COV | {"covariance_fraction": 1.0},
    "kl_cov": {"objective": "kl_cov", "covariance_fraction": 0.2, "covariance_penalty": 0.1},
}


def draw(seed):
    """log p, log p_old, log p_rollout, advantages of each token and the mask, no response empty."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(N, T, generator=generator, dtype=torch.float64) - 0.1
    new, rollout = old + 0.3 * torch.randn(2, N, T, generator=generator, dtype=torch.float64)
    advantages = torch.randn(N, T, generator=generator, dtype=torch.float64)
    mask = (torch.arange(T) < torch.randint(1, T + 1, (N, 1), generator=generator)).double()
    return new.clamp(max=-0.01).requires_grad_(), old, rollout, advantages, mask


def run_verl(name, new, old, advantages, mask, **changes):
    """verl's loss, its gradient and its metrics."""
    clips = {"clip_ratio": 0.1, "clip_ratio_low": 0.1, "clip_ratio_high": 0.15, "clip_ratio_c": 1.5}
    settings = {"policy_loss": PolicyLossConfig(**COVARIANCES | changes), "tau_pos": 2.0, "tau_neg": 3.0}
    config = ActorConfig(strategy="fsdp", rollout_n=2, use_dynamic_bsz=True, **clips, **settings)
    function = core_algos.get_policy_loss_fn(name)
    loss, metrics = function(old, new, advantages, mask, "seq-mean-token-mean", config)
    return loss, torch.autograd.grad(loss, new)[0], metrics


def make_ours(name):
    reads_clips = not {"temperature_positive", "covariance_penalty"} & LOSSES[name].keys()
    return PolicyLoss(**LOSSES[name], **({"clip_low": 0.1, "clip_high": 0.15} if reads_clips else {}))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_verls(name):
    for seed in range(3):
        new, old, _, advantages, mask = draw(seed)
        if name == "geo_mean":  # verl takes the mean of a response's advantages, so that all tokens have it
            advantages = advantages[:, :1].expand(N, T)
        theirs, slopes, _ = run_verl(name, new, old, advantages, mask)
        ours, _ = make_ours(name)(new, old, advantages, mask)
        torch.testing.assert_close(torch.autograd.grad(ours, new)[0], slopes, rtol=1e-6, atol=1e-8)
        if "dppo" not in name:  # whose value is the paper's, -rho A, where verl has that times log p
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
        assert 0 < (slopes != 0).sum() < N * T


def test_clip_cov_clips_as_many_tokens_as_verl():
    """verl draws them at random, so that only their number can be compared where not all are taken."""
    for seed in range(3):
        new, old, _, advantages, mask = draw(seed)
        share = run_verl("clip_cov", new, old, advantages, mask, clip_cov_ratio=0.1)[2]["actor/pg_clipfrac"]
        loss = PolicyLoss(**CLIP_COV, covariance_fraction=0.1, clip_low=0.1, clip_high=0.15)
        ours = loss(new, old, advantages, mask)[1]["clip_fraction_covariance"]
        assert 0 < ours.item() == pytest.approx(share)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(
    ("threshold", "settings"),
    [(1.1, {}), ("0.8_1.3", {"rollout_rule": "mask", "rollout_floor": 0.8, "rollout_cap": 1.3})],
    ids=["truncated", "icepop"],
)
def test_rollout_weights_are_verls(level, threshold, settings):
    new, old, rollout, advantages, mask = draw(0)
    weights, _ = rollout_corr_helper.compute_rollout_correction_weights(old - rollout, mask, level, threshold)
    loss = PolicyLoss(**{"rollout_cap": 1.1} | settings, rollout_level=level, objective="cispo")
    ours, _ = loss(new, old, advantages, mask, rollout_log_probs=rollout)
    slopes = torch.autograd.grad(ours, new)[0]
    plain = torch.autograd.grad(PolicyLoss(objective="cispo")(new, old, advantages, mask)[0], new)[0]
    torch.testing.assert_close(slopes, plain * weights, rtol=1e-6, atol=1e-8)
