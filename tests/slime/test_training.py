"""Training with the example: its model, schedules and optimizer are real, and slime's functions where there are some."""

import on_cpu
import pytest
import slime_batch
import torch
from slime_actor import HERE, make_args


def train(estimator, rollouts=4, **changed):
    """The mean reward and slime's fields of each rollout of the example."""
    slime_batch.forget_process()
    args = make_args(HERE / "credit.yaml", **on_cpu.SIZES, **changed)
    args.custom_advantage_function_path = f"{slime_batch.PACKAGE}.{estimator}"
    if estimator != "dgpo":
        args.credit = {}
    return list(on_cpu.run(args, rollouts))


@pytest.fixture(scope="module")
def dgpo(megatron):
    return train("dgpo")


def metrics(data):
    return {name: float(value) for name, value in data.items() if name.startswith("credit/")}


def test_the_first_rollout_has_no_deviation_and_later_ones_have(dgpo):
    first, *later = (metrics(data) for _, data in dgpo)
    assert (first["credit/deviation_max"], first["credit/weight_max"]) == (0.0, 1.0)
    assert all(each["credit/deviation_mean"] > 1e-4 and each["credit/weight_max"] > 1 for each in later)


def test_it_trains_otherwise_than_grpo_from_the_second_rollout_on(dgpo):
    grpo = train("grpo")
    assert all(map(torch.equal, dgpo[0][1]["advantages"], grpo[0][1]["advantages"]))
    pairs = zip(dgpo[1][1]["advantages"], grpo[1][1]["advantages"], strict=True)
    assert max((ours - theirs).abs().max() for ours, theirs in pairs) > 0.01


def test_the_reward_rises(dgpo):
    longer = [reward for reward, _ in train("dgpo", rollouts=10)]
    assert longer[-1] > longer[0] + 0.2
