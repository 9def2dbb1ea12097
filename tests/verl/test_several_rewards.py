"""Several rewards by name, those of greedy responses, and options about rewards that cannot go together."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from advantage_calls import LAST, MASKS, NAMED, WIDTH, draw, train_step
from omegaconf import OmegaConf
from tensordict import NonTensorStack
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage

import credit
from credit.adapters.verl import settings

GDPO = ["algorithm.adv_estimator=credit_gdpo", "+algorithm.credit.preset=verl", NAMED]


def verls_gdpo(mask, index, named, weights=None):
    config = {"gdpo_reward_keys": list(named), "gdpo_reward_weights": weights}
    ones = torch.ones_like(mask, dtype=torch.long)
    return core_algos.compute_gdpo_outcome_advantage(
        token_level_rewards=torch.zeros(mask.shape),
        response_mask=mask,
        index=index,
        config=OmegaConf.create(config),
        non_tensor_batch={name: np.array(values) for name, values in named.items()},
        batch={"prompts": torch.zeros(len(mask), 1), "attention_mask": torch.cat([ones[:, :1], ones], dim=1)},
    )[0]


@pytest.mark.parametrize("weights", [None, [1.0, 0.25]])
@pytest.mark.parametrize("column", [False, True])
def test_several_rewards_equal_verls_gdpo(monkeypatch, configured, weights, column):
    named = {"right": [True, False, False, True], "format": [20.0, 0.5, 3.0, -1.0]}
    rows = [{name: values[row] for name, values in named.items()} for row in range(4)]
    columns = dict(LAST)
    if column:  # of a reward model beside the policy
        for row in rows:
            del row["format"]
        columns["format"] = torch.tensor(named["format"])
    columns["extra_fields"] = NonTensorStack(*[{"reward_extra_info": row} for row in rows])
    given = [*GDPO, *([] if weights is None else [f"+algorithm.gdpo_reward_weights={weights}"])]
    found, metrics = train_step(monkeypatch, configured, MASKS, [], columns, *given)
    mask = torch.zeros(4, 6)
    for row, own in enumerate(MASKS):
        mask[row, : len(own)] = torch.tensor(own).float()
    theirs = verls_gdpo(mask, np.array(["p0", "p0", "p1", "p1"]), named, weights)
    assert theirs.abs().max() > 0.5
    for row, own in enumerate(found):
        torch.testing.assert_close(own, theirs[row, : len(own)], rtol=1e-4, atol=1e-4)
    assert "credit/advantage_std" in metrics


def test_several_rewards_keep_their_digits(monkeypatch, configured):
    """They come as Python's floats; in float32 the first two are equal."""
    named = [{"right": 1.0 + 1e-9 * row, "format": 0.0} for row in (0, 1, 1, 0)]
    columns = dict(LAST) | {"extra_fields": NonTensorStack(*[{"reward_extra_info": row} for row in named])}
    given = [*GDPO, "+algorithm.credit.eps=1e-15"]
    found, metrics = train_step(monkeypatch, configured, MASKS, [], columns, *given)
    assert metrics["credit/zero_variance_groups"] == 0
    assert found[1][0] > 0.5 > found[0][0]
    assert found[0].dtype == torch.float32


def test_a_reward_that_the_batch_lacks_is_named(monkeypatch, configured):
    fields = [{"reward_extra_info": {"right": 1.0, "acc": 0.0}}] * 4
    columns = {**LAST, "extra_fields": NonTensorStack(*fields)}
    with pytest.raises(ValueError, match="credit_gdpo needs format, .* it has acc, .*right"):
        train_step(monkeypatch, configured, MASKS, [], columns, *GDPO)


def parse(**algorithm):
    name = algorithm.pop("name")
    return settings.parse_settings(OmegaConf.create({"adv_estimator": f"credit_{name}", **algorithm}))


KEYS = {"gdpo_reward_keys": ["a", "b"]}


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ({"name": "gdpo"}, "none are named; .* .algorithm.gdpo_reward_keys="),
        ({"name": "grpo", **KEYS}, "algorithm.gdpo_reward_keys has no effect with credit_grpo"),
        ({"name": "grpo", "gdpo_reward_weights": [1, 2]}, "gdpo_reward_weights has no effect"),
        (
            {"name": "gdpo", **KEYS, "gdpo_reward_weights": [1]},
            "has 1 weights for the 2 rewards of .* .a, b.",
        ),
        (
            {"name": "gdpo", **KEYS, "gdpo_reward_weights": [1, 2], "credit": {"reward_weights": [1, 2]}},
            "are both set; leave one out",
        ),
        ({"name": "gdpo", **KEYS, "use_kl_in_reward": True}, "use_kl_in_reward=True has no effect"),
        (
            {"name": "mix", **KEYS, "credit": {"parts": [[1, "gdpo"], [1, "grpo"]]}},
            "use that estimator alone",
        ),
        (
            {"name": "reinforce_plus_plus", "credit": {"token_rewards": "turn_scores"}},
            "has no effect .* set rewards_from=both",
        ),
        (
            {"name": "reinforce_plus_plus", "credit": {"rewards_from": "both"}},
            "adds verl's token_level_rewards to their own sum",
        ),
        ({"name": "process_grpo", "credit": {"rewards_from": "both"}}, "to their own sum"),
        (
            {"name": "gae", "use_kl_in_reward": True, "credit": {"rewards_from": "response"}},
            "rewards_from=response of gae moves .* last token, and with it the KL penalty",
        ),
        (
            {"name": "process_grpo", "use_kl_in_reward": True, "credit": {"token_rewards": "turn_scores"}},
            "use_kl_in_reward=True has no effect with process_grpo, .*token_rewards=turn_scores alone",
        ),
        (
            {"name": "reinforce_plus_plus", "use_kl_in_reward": True, "credit": {"kl_coefficient": 0.1}},
            "both subtract a KL penalty",
        ),
    ],
)
def test_options_about_rewards_that_cannot_go_together(algorithm, message):
    with pytest.raises(ValueError, match=message):
        parse(**algorithm)


def test_weights_of_verls_option_reach_the_base_that_weighs():
    choice = parse(name="dgpo", **KEYS, gdpo_reward_weights=[1, 0.5], credit={"base": {"name": "gdpo"}})
    assert choice.estimator.parsed_base.reward_weights == (1.0, 0.5)
    assert choice.reward_keys == ("a", "b")


def test_rewards_of_greedy_responses_are_taken_where_verl_passes_them():
    index, mask, drawn = draw(3)
    last = (torch.arange(WIDTH) * mask).argmax(dim=1)
    scores = torch.zeros(mask.shape).scatter(1, last[:, None], drawn[:, :1])
    baselines = drawn[:, 1]
    data = DataProto.from_dict(
        tensors={"token_level_rewards": scores, "response_mask": mask, "reward_baselines": baselines},
        non_tensors={"uid": index},
    )
    config = OmegaConf.create({})
    ours, theirs = (
        compute_advantage(data.select(), name, config=config).batch["advantages"]
        for name in ("credit_remax", "remax")
    )
    torch.testing.assert_close(ours, theirs * mask)
    assert ours.abs().max() > 0.5


def test_parallel_calls_of_tools_are_refused():
    from credit.adapters.verl import rewards

    with pytest.raises(ValueError, match="max_parallel_calls=1, or let the agent loop give turn_scores"):
        rewards.refuse_parallel_calls("tool_rewards", SimpleNamespace(max_parallel_calls=2))
    rewards.refuse_parallel_calls("turn_scores", SimpleNamespace(max_parallel_calls=2))


@pytest.mark.parametrize(
    ("name", "message"), [("gae", "set .algorithm.credit.lam=0.9"), ("grpo", "no lambda; leave")]
)
def test_verls_lambda_is_refused_where_it_has_no_effect(name, message):
    algorithm = {"gamma": 1.0, "lam": 0.9}
    with pytest.raises(ValueError, match=f"lam=0.9 has no effect with credit_{name}, .*{message}"):
        settings.refuse_without_effect(credit.get(name), algorithm)
