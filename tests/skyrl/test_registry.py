"""SkyRL's own trainer with estimators of its registry, and which ones the registry cannot feed."""

from typing import Literal

import pytest
import torch
from skyrl.backends.skyrl_train.utils import ppo_utils
from skyrl.train.utils import validate_cfg
from skyrl_models import make_output

import credit
from credit.adapters.skyrl import answers, registry

REWARDS_ALONE = ["grpo", "rloo", "dr_grpo", "max_rl", "pass_at_k", "dapo"]
UNFED = {
    "dgpo": "credit_dgpo needs deviation, normalized_entropy, which SkyRL's registry does not hand over; start "
    "SkyRL with trainer.override_entrypoint=credit.adapters.skyrl",
    "mt_grpo": "credit_mt_grpo needs token_rewards, turns",
    "top_entropy": "credit_top_entropy needs normalized_entropy",
    "gdpo": "credit_gdpo weighs several rewards, but SkyRL passes on the sum",
    "reinforce_plus_plus_baseline": "compares all responses of the batch, or reads their lengths",
    "lite_ppo": "compares all responses of the batch, or reads their lengths",
    "gpg": "compares all responses of the batch, or reads their lengths",
    "opo": "compares all responses of the batch, or reads their lengths",
}


@pytest.mark.parametrize("name", UNFED)
def test_what_the_registry_cannot_feed_is_refused(own_registry, name):
    with pytest.raises(ValueError, match=UNFED[name]):
        registry.register(credit.get(name))
    assert f"credit_{name}" not in own_registry.list_available()


def test_one_that_tells_tokens_apart_is_refused(own_registry):
    """The output of tools is in SkyRL's response_mask, and would get credit."""
    estimator = credit.get("reinforce_plus_plus", gamma=0.9)
    with pytest.raises(
        ValueError, match="tokens of a response different advantages, and .* the output of tools"
    ):
        registry.register(estimator)


@pytest.mark.parametrize("name", REWARDS_ALONE)
def test_skyrls_own_step_takes_advantages_from_the_registry(steps, own_registry, name):
    """Rows that SkyRL adds are groups of their own, and its trainer has no part of credit's."""
    estimator = credit.get(name)
    assert registry.register(estimator) == f"credit_{name}"
    run = steps("grpo")
    run.cfg.trainer.algorithm.advantage_estimator = f"credit_{name}"  # as in a config without our section
    run.trainer.dispatch.ways = 3
    output = make_output(seed=4)
    step = run.take(output, train=False)
    rewards = torch.tensor(output["rewards"])
    rollouts = credit.Rollouts(rewards, torch.arange(8) // 4, torch.ones(8, 1, dtype=torch.bool))
    expected = estimator(rollouts).advantages
    torch.testing.assert_close(step.advantages[:8], expected * step.data["response_mask"][:8])
    assert (step.advantages[8] == 0).all()


def test_skyrl_checks_the_name_in_its_config(own_registry, arguments):
    from skyrl.train.config import SkyRLTrainConfig

    option = arguments(trainer__algorithm__advantage_estimator="credit_rloo")
    cfg = SkyRLTrainConfig.from_cli_overrides(option)
    with pytest.raises(AssertionError, match="invalid advantage_estimator: credit_rloo"):
        validate_cfg(cfg)
    registry.register(credit.get("rloo"))
    validate_cfg(cfg)


def test_a_name_is_registered_once(own_registry):
    registry.register(credit.get("rloo"), "mine")
    with pytest.raises(ValueError, match="SkyRL has an estimator 'mine' already"):
        registry.register(credit.get("rloo"), "mine")
    with pytest.raises(ValueError, match="SkyRL has an estimator 'grpo' already"):
        registry.register(credit.get("grpo"), "grpo")


def test_options_of_skyrls_own_estimators_are_refused(own_registry, arguments):
    from skyrl.train.config import SkyRLTrainConfig

    registry.register(credit.get("rloo"))
    cfg = SkyRLTrainConfig.from_cli_overrides(arguments(trainer__algorithm__gamma=0.9))
    given = {"token_level_rewards": torch.ones(2, 1), "response_mask": torch.ones(2, 1), "index": ["a", "a"]}
    with pytest.raises(ValueError, match="gamma=0.9 has no effect with credit_rloo, which has no discount"):
        ppo_utils.compute_advantages_and_returns(
            **given, adv_estimator="credit_rloo", config=cfg.trainer.algorithm
        )
    with pytest.raises(ValueError, match="with a single response every advantage is 0"):
        own_registry.get("credit_rloo")(**given | {"index": ["a", "b"]})


def test_a_second_run_in_one_process_is_no_second_estimator(own_registry):
    for _ in range(2):
        registry.add("credit_dgpo", answers.answer)
    with pytest.raises(
        ValueError, match="has an estimator 'credit_dgpo' already; .*, or, if this is credit's trainer"
    ):
        registry.add("credit_dgpo", print)


class Broken(credit.GRPO):
    """Gives a response no number."""

    name: Literal["no_number_for_skyrl"] = "no_number_for_skyrl"

    def advantages(self, rollouts):
        return super().advantages(rollouts) * float("nan")


def test_an_advantage_that_is_nan_ends_the_run():
    with pytest.raises(ValueError, match="gave an advantage that is NaN"):
        registry.compute_advantages(Broken(), torch.eye(2), torch.ones(2, 2), ["a", "a"])
