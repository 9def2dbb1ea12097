"""With preset="skyrl", a group baseline's advantages are those of SkyRL's own estimator."""

import pytest
import torch
from skyrl_models import make_output

import credit
from credit.adapters.skyrl import registry

PAIRS = {
    "grpo": ("grpo", {}),
    "dr_grpo": ("grpo", {"trainer__algorithm__grpo_norm_by_std": "false"}),
    "rloo": ("rloo", {}),
    "max_rl": ("maxrl", {}),
    "reinforce_plus_plus": ("reinforce++", {}),
}
CLOSE = 5e-6


@pytest.fixture
def compare(steps):
    """The batches of SkyRL's own estimator and of ours, in a step of each, from the same responses."""

    def run(name, tool=True, train=False, output=None, **settings):
        theirs, options = PAIRS[name]
        made = []
        own = {"preset": "skyrl"} | settings
        for estimator, given, changed in ((theirs, {}, options), (f"credit_{name}", own, {})):
            output = output or make_output(seed=3, tool=tool)
            made.append(steps(estimator, given, **changed).take(dict(output), train=train))
        return made

    return run


@pytest.mark.parametrize("name", PAIRS)
def test_with_its_constants_advantages_are_skyrls_own(compare, name):
    """SkyRL whitens over the output of tools, too, so that reinforce++ is compared without them."""
    theirs, ours = compare(name, tool=name != "reinforce_plus_plus")
    assert theirs.advantages[ours.mask].abs().max() > 0.1
    torch.testing.assert_close(ours.advantages[ours.mask], theirs.advantages[ours.mask], rtol=0, atol=CLOSE)


def test_rewards_of_turns_are_read_as_skyrls_own(compare):
    output = make_output(seed=3, tool=False)
    output["rewards"] = [
        [0.5 * (t == len(row) // 2) + reward * (t == len(row) - 1) for t in range(len(row))]
        for row, reward in zip(output["response_ids"], output["rewards"], strict=True)
    ]
    theirs, ours = compare("reinforce_plus_plus", output=output, rewards_from="tokens")
    torch.testing.assert_close(ours.advantages[ours.mask], theirs.advantages[ours.mask], rtol=0, atol=CLOSE)
    assert len(ours.advantages[0][ours.mask[0]].unique()) > 1


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_training_is_skyrls_own(compare, name):
    theirs, ours = compare(name, train=True)
    for key in ("policy_loss", "grad_norm"):
        assert ours.status[key] == pytest.approx(theirs.status[key], abs=1e-5)
    for key in ("loss/avg_final_rewards", "reward/avg_raw_reward"):
        assert ours.metrics[key] == theirs.metrics[key]


def test_equal_rewards_and_a_group_of_one(own_registry):
    """SkyRL's grpo leaves the rounding of a mean for equal rewards, and the reward itself for one response."""
    rewards = torch.zeros(8, 3)
    rewards[:, -1] = 2.1
    given = {"token_level_rewards": rewards, "response_mask": torch.ones(8, 3), "index": ["a"] * 7 + ["b"]}
    name = registry.register(credit.get("grpo", preset="skyrl"))
    expected, found = (own_registry.get(each)(**given)[0] for each in ("grpo", name))
    assert (found == 0).all()
    assert 0 < expected[:7].abs().max() < 0.5
    assert expected[7, 0] == pytest.approx(2.1, abs=1e-4)


def test_without_an_estimator_skyrl_is_as_without_the_adapter(steps):
    """After a run with an estimator in the same process, its own trainer trains, and logs nothing of credit."""
    steps("credit_dgpo", {"tau": 0.05}).take()
    run = steps("grpo")
    step = run.take()
    assert run.choice is None
    assert type(run.trainer).__module__ == "skyrl.train.trainer"
    assert not any(name.startswith("credit/") for name in step.metrics)
    assert "credit_given" not in step.data.metadata
