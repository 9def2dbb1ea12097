"""Estimators against TRL's own advantages, by TRL's own trainer."""

import numpy as np
import pytest
from trl import GRPOConfig, GRPOTrainer


def varied(completions, **_):
    return [len(set(text)) / 8 for text in completions]


def low(completions, **_):
    return [sum(c < "5" for c in text) / 8 for text in completions]


def advantages(trainer):
    return np.asarray(trainer._logs["advantages"])


@pytest.mark.releases
@pytest.mark.parametrize(
    ("name", "scale_rewards"), [("grpo", "group"), ("lite_ppo", "batch"), ("dr_grpo", "none")]
)
def test_baselines_equal_trls(train, name, scale_rewards):
    settings = {"reward": [varied, low], "per_device_train_batch_size": 16, "max_steps": 1}
    ours, _ = train(name, {"preset": "trl"}, **settings)
    theirs, _ = train(kind=GRPOTrainer, config=GRPOConfig, scale_rewards=scale_rewards, **settings)
    assert np.abs(advantages(theirs)).max() > 0.1
    np.testing.assert_allclose(advantages(ours), advantages(theirs), atol=2e-6)
