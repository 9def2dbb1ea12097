"""The filter of slime's dynamic sampling, in the process that samples."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import slime_batch

from credit.adapters import slime


def make_group(*rewards):
    return [SimpleNamespace(get_reward_value=lambda args, reward=reward: reward) for reward in rewards]


@pytest.mark.parametrize(
    ("rewards", "kept"),
    [([1.0, 0.0], True), ([1.0, 1.0], False), ([1.0, None], False), ([1.0, None, 0.0], True)],
)
def test_dapo_keeps_groups_whose_rewards_differ(rewards, kept):
    args = slime_batch.name_args("dapo", slime_batch.make_samples())
    found = slime.keep_group(args, make_group(*rewards), group=0)
    assert found.keep == kept
    assert found.reason == (None if kept else "credit_dapo")


def test_of_a_rollout_with_several_samples_the_last_one_counts():
    args = slime_batch.name_args("dapo", slime_batch.make_samples())
    first, second = make_group(0.0, 1.0), make_group(1.0, 1.0)
    assert not slime.keep_group(args, [first, second]).keep


def test_several_rewards_are_refused():
    args = slime_batch.name_args("dapo", slime_batch.make_samples())
    with pytest.raises(ValueError, match="name one by --reward-key"):
        slime.keep_group(args, make_group({"a": 1.0}, {"a": 0.0}))


def test_grpo_keeps_every_group():
    args = slime_batch.name_args("grpo", slime_batch.make_samples())
    assert slime.keep_group(args, make_group(1.0, 1.0)).keep


def test_the_process_that_samples_needs_neither_torch_nor_megatron():
    """slime's process of rollouts has no GPU; importing them there would take seconds."""
    code = "import sys\nfrom credit.adapters.slime import keep_group\nprint({'torch', 'megatron'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_numbers_may_be_numpys():
    args = slime_batch.name_args("dapo", slime_batch.make_samples())
    assert slime.keep_group(args, make_group(np.float32(1), np.float32(0))).keep
