"""TRL's options that scale and combine rewards: accepted where the estimator does what they say."""

from typing import Literal

import pytest
from trl import GRPOConfig, GRPOTrainer

import credit

EACH = {"multi_objective_aggregation": "normalize_then_sum"}


class Unscaled(credit.GRPO):
    """GRPO with a setting of the user's own that turns scaling off."""

    name: Literal["unscaled"] = "unscaled"
    scales: bool = False

    def advantages(self, rollouts):
        return super().advantages(rollouts) if self.scales else credit.DrGRPO().advantages(rollouts)


class Added(credit.GRPO):
    """Gets the rewards of all functions, and adds them before it standardizes."""

    name: Literal["added"] = "added"
    reward_weights: tuple[float, ...] | None = None

    def advantages(self, rollouts):
        return super().advantages(rollouts._replace(rewards=rollouts.rewards.sum(axis=1)))


def longer(completions, **_):
    return [len(set(text)) / 8 for text in completions]


@pytest.mark.parametrize(
    ("name", "kwargs", "options"),
    [
        ("dr_grpo", {}, {"scale_rewards": "none", "loss_type": "dr_grpo"}),
        ("dr_grpo", {}, {"scale_rewards": False}),
        ("rloo", {}, {"scale_rewards": "none"}),
        ("lite_ppo", {}, {"scale_rewards": "batch"}),
        ("lite_ppo", {"correction": 0, "eps": 0.05}, {"scale_rewards": "batch"}),
        ("reinforce_plus_plus_baseline", {}, {"scale_rewards": "batch"}),
        ("unscaled", {}, {"scale_rewards": "none"}),
        ("dgpo", {"base": "dr_grpo"}, {"scale_rewards": "none"}),
        ("dgpo", {"base": "lite_ppo"}, {"scale_rewards": "batch"}),
        ("delightful", {"base": "dr_grpo"}, {"scale_rewards": "none"}),
        ("dgpo", {"base": "gdpo"}, EACH),
        ("gdpo", {}, EACH),
        ("mix", {"parts": [[1.0, "dr_grpo"], [0.5, "rloo"]]}, {"scale_rewards": "none"}),
        ("grpo", {}, {"scale_rewards": "group"}),
    ],
)
def test_an_option_that_agrees_is_accepted(make_trainer, name, kwargs, options):
    make_trainer(name, kwargs, reward=[longer, longer], **options)


@pytest.mark.parametrize(
    ("name", "kwargs", "options", "message"),
    [
        (
            "grpo",
            {},
            {"scale_rewards": "none"},
            "scale_rewards='none' contradicts advantage_estimator='grpo', whose advantages are the same in "
            "any unit of a group's rewards; leave it out, or set advantage_estimator='dr_grpo'$",
        ),
        (
            "dr_grpo",
            {},
            {"scale_rewards": "batch"},
            "'dr_grpo', which does not scale the rewards; leave it out, or set advantage_estimator='lite_ppo'",
        ),
        ("lite_ppo", {}, {"scale_rewards": "none"}, "'lite_ppo', .* any unit of the batch's rewards"),
        (
            "unscaled",
            {"scales": True},
            {"scale_rewards": "none"},
            "contradicts advantage_estimator='unscaled'",
        ),
        (
            "dgpo",
            {"base": "grpo"},
            {"scale_rewards": "none"},
            "leave it out, or set advantage_estimator_kwargs={'base': 'dr_grpo'}$",
        ),
        (
            "mix",
            {"parts": [[1.0, "dr_grpo"], [0.001, "grpo"]]},
            {"scale_rewards": "none"},
            "scales the rewards in a way of its own",
        ),
        ("dgpo", {}, {"scale_rewards": "batch"}, "{'base': 'lite_ppo'}"),
        (
            "dgpo",
            {},
            EACH,
            "multi_objective_aggregation='normalize_then_sum' contradicts advantage_estimator='dgpo', which "
            "gets the weighted sum of the rewards; leave it out, or set "
            "advantage_estimator_kwargs={'base': 'gdpo'}$",
        ),
        ("grpo", {}, EACH, "set advantage_estimator='gdpo'"),
        ("added", {}, EACH, "'added', which combines the rewards in a way of its own"),
        ("grpo", {}, {"scale_rewards": "std"}, "scale_rewards is 'std'; expected 'group', 'batch', 'none'"),
    ],
)
def test_an_option_that_contradicts_is_refused_before_loading(make_trainer, name, kwargs, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(name, kwargs, model="/nowhere/no-model", reward=[longer, longer], **options)


@pytest.mark.parametrize(("base", "scaling"), [("dr_grpo", "none"), ("lite_ppo", "batch")])
def test_the_advantages_are_trls_with_that_option(train, base, scaling):
    """In the first step all weights of dgpo are 1."""
    settings = {"scale_rewards": scaling, "reward": longer, "per_device_train_batch_size": 16, "max_steps": 1}
    ours, _ = train("dgpo", {"preset": "trl", "base": base}, **settings)
    theirs, _ = train(kind=GRPOTrainer, config=GRPOConfig, **settings)
    assert max(map(abs, theirs._logs["advantages"])) > 0.1
    assert list(ours._logs["advantages"]) == pytest.approx(list(theirs._logs["advantages"]), abs=2e-6)
