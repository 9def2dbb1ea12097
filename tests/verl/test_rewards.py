"""Rewards of tokens, of turns and by name, through verl's own functions and against them or float64."""

import logging
from types import SimpleNamespace

import by_hand
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import RayPPOTrainer, apply_kl_penalty, compute_advantage
from verl.trainer.ppo.v1 import PPOTrainerSync, trainer_base

import credit
from credit.adapters.verl import extra, rollouts, settings, turns
from credit.adapters.verl.trainer import EstimatorMixin

WIDTH = 11


def draw(seed, holes=True):
    """12 responses of ragged groups, masks with holes, and a reward on every token, float32."""
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(["a", "b", "c", "d"], [2, 3, 3, 4])).astype(object)
    mask = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, 12)[:, None]
    if holes:
        mask[:, 1:] &= rng.random((12, WIDTH - 1)) < 0.7
    drawn = rng.normal(size=(12, WIDTH)).astype(np.float32)
    return index, torch.from_numpy(mask).long(), torch.from_numpy(drawn)


def call(name, rewards, mask, index, algorithm=None, **fields):
    """What an estimator of ours returns to verl's call, within a step of a V1 trainer that has the fields."""
    step = rollouts.StepContext((), [False] * len(mask), fields)
    function = core_algos.get_adv_estimator_fn(f"credit_{name}")
    given = {"token_level_rewards": rewards.clone(), "response_mask": mask, "index": index}
    with rollouts.step_context(step):
        return function(**given, config=OmegaConf.create(algorithm or {}))


def assert_equal(ours, theirs, mask):
    for own, other in zip(ours, theirs, strict=True):
        assert own.abs().max() > 0.1
        assert (own[mask == 0] == 0).all()
        torch.testing.assert_close(own, other * mask, rtol=1e-5, atol=1e-5)


# --- rewards of tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_with_kl_in_the_reward_returns_to_go_equal_verls_own(seed, gamma):
    index, mask, drawn = draw(seed)
    last = (torch.arange(WIDTH) * mask).argmax(dim=1)
    scores = torch.zeros(mask.shape).scatter(1, last[:, None], drawn[:, :1])
    log_probs = {"old_log_probs": drawn - 3, "ref_log_prob": drawn.roll(1, 0) - 3}
    data = DataProto.from_dict(
        tensors={"token_level_scores": scores, "response_mask": mask, **log_probs}, non_tensors={"uid": index}
    )
    data, _ = apply_kl_penalty(data, core_algos.FixedKLController(0.05))
    found = {}
    settings_of = {"reinforce_plus_plus": {"gamma": gamma}}
    settings_of["credit_reinforce_plus_plus"] = {"credit": {"gamma": gamma}}
    for name, own in settings_of.items():
        config = OmegaConf.create(own)
        result = compute_advantage(data.select(), name, gamma=gamma, config=config)
        found[name] = (result.batch["advantages"], result.batch["returns"])
    theirs, ours = found.values()
    assert_equal(ours, theirs, mask)
    moved = call("reinforce_plus_plus", scores, mask, index, {"credit": {"gamma": gamma}})
    assert (moved[0] - ours[0]).abs().max() > 0.05  # the penalty matters


@pytest.mark.parametrize("seed", range(5))
def test_values_and_rewards_of_tokens_give_verls_gae(seed):
    index, mask, drawn = draw(seed)
    values = drawn.roll(1, 1)
    theirs = core_algos.compute_gae_advantage_return(drawn, values, mask.float(), 0.9, 0.8)
    chosen = {"credit": {"gamma": 0.9, "lam": 0.8}}
    assert_equal(call("gae", drawn, mask, index, chosen, **{"extra.values": values}), theirs, mask)


OPTIMAL = {
    "otb": core_algos.compute_optimal_token_baseline_advantage,
    "tir_otb": core_algos.compute_multi_turn_optimal_token_baseline_advantage,
}


@pytest.mark.parametrize("name", OPTIMAL)
@pytest.mark.parametrize("seed", range(5))
def test_rewards_of_tokens_give_verls_optimal_baselines(name, seed):
    index, mask, drawn = draw(seed, holes=name == "tir_otb")
    rng = np.random.default_rng(seed)
    shares = torch.from_numpy(rng.dirichlet(np.full(5, 0.5), size=mask.shape).astype(np.float32))
    log_probs, squares = shares[..., 0].log().clamp(min=-20), (shares**2).sum(dim=-1)
    theirs = OPTIMAL[name](
        drawn, mask.float(), index, old_log_probs=log_probs, sum_pi_squared=squares, epsilon=1e-12
    )
    fields = {"log_probs": log_probs, "extra.sum_squares": squares}
    assert_equal(call(name, drawn, mask, index, **fields), theirs, mask)


@pytest.mark.parametrize("name", ["mt_grpo", "process_grpo"])
@pytest.mark.parametrize("seed", range(5))
def test_turns_have_the_rewards_of_their_tokens(name, seed):
    index, mask, drawn = draw(seed)
    rewards = drawn * mask
    ours, _ = call(name, rewards, mask, index)
    expected = getattr(by_hand, name)(rewards.double().numpy(), mask, index)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_parts_of_a_mix_read_tokens_too_and_what_is_set_stays():
    index, mask, drawn = draw(0)
    parts = [[1.0, "grpo"], [2.0, {"name": "reinforce_plus_plus", "rewards_from": "response"}]]
    mixed, _ = call(
        "mix", drawn, mask, index, {"credit": {"parts": [parts[0], [2.0, "reinforce_plus_plus"]]}}
    )
    expected = call("grpo", drawn, mask, index)[0] + 2 * call("reinforce_plus_plus", drawn, mask, index)[0]
    torch.testing.assert_close(mixed, expected)
    summed, _ = call("mix", drawn, mask, index, {"credit": {"parts": parts}})
    assert (summed - mixed).abs().max() > 0.1


def test_rewards_that_no_token_of_the_mask_has_are_reported(caplog):
    index, mask, drawn = draw(0)
    rollouts._warn_of_lost_rewards.cache_clear()
    with caplog.at_level(logging.WARNING, "credit"):
        call("reinforce_plus_plus", drawn * mask, mask, index)
        assert not caplog.records
        for _ in range(2):
            call("reinforce_plus_plus", drawn, mask, index)
    (record,) = caplog.records
    assert "lie outside the response_mask" in record.getMessage()


# --- rejection -------------------------------------------------------------------------------------------


def test_rewards_of_rejected_tokens_count_for_those_before_them():
    before = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 1, 0]]).bool()
    kept = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]).bool()
    rewards = torch.tensor([[1.0, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32]])
    numbers = credit.tokens.turns(before)
    assert turns.move_rejected(rewards, before, kept).tolist() == [
        [3, 0, 0, 56, 0, 0],
        [0, 0, 12, 0, 0, 0],
        [1, 26, 0, 0, 0, 0],
    ]
    assert turns.move_rejected(rewards, before, kept, numbers)[2].tolist() == [1, 2, 0, 0, 0, 0]
    assert turns.spread_ends(rewards.long(), before)[0].tolist()[:2] == [2, 2]
    assert turns.spread_ends(rewards.long(), before)[0].tolist()[3:] == [32, 32, 32]


class Store:
    """A batch of verl's TransferQueue, as its trainer reads and writes it."""

    partition_id = "train"

    def __init__(self, data, keys):
        self.data, self.keys, self.tags, self.extra_info = data, keys, [{} for _ in keys], {}

    def __len__(self):
        return len(self.keys)

    def get(self, keys, partition_id, select_fields=None):
        names = self.data if select_fields is None else [n for n in select_fields if n in self.data]
        return TensorDict({name: self.data[name] for name in names}, batch_size=[len(self.keys)])

    def put(self, keys, partition_id, fields):
        self.data |= dict(fields.items())
        return self


def nest(rows):
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def train_step(monkeypatch, configured, masks, far, columns, *overrides):
    """verl's own `_compute_advantage` of V1, with ours in it: advantages by row, and the metrics.

    Args:
        masks: a list per row.
        far: the tokens, (row, column), at which the rollout's log-probs are far from the policy's.
        columns: further columns of the batch, with rm_scores among them.
    """
    config = configured(*overrides)
    log_probs = [torch.full((len(row),), -1.0) for row in masks]
    rollout = [row.clone() for row in log_probs]
    for row, column in far:
        rollout[row][column] = -9.0
    data = {name: nest(torch.tensor(row) for row in masks) for name in ("response_mask", "responses")}
    data |= columns
    data |= {"old_log_probs": nest(log_probs), "rollout_log_probs": nest(rollout)}
    data["uid"] = NonTensorStack(*[f"p{row // 2}" for row in range(len(masks))])
    store = Store(data, [f"p{row // 2}_{row % 2}_0" for row in range(len(masks))])
    for module in (extra.tq, trainer_base.tq):
        monkeypatch.setattr(module, "kv_batch_get", store.get)
        monkeypatch.setattr(module, "kv_batch_put", store.put)
    kind = type("Trainer", (EstimatorMixin, PPOTrainerSync), {})
    trainer = object.__new__(kind)
    trainer.__dict__ |= {"config": config, "global_steps": 1, "total_training_steps": 4}
    trainer.credit_choice = settings.parse_settings(config.algorithm)
    metrics = {}
    trainer._compute_advantage(store, metrics)
    kept = [row.tolist() for row in store.data["response_mask"].unbind()]
    assert kept != masks if far else kept == masks
    return [torch.as_tensor(row) for row in store.data["advantages"].unbind()], metrics


REJECTS = [
    "algorithm.rollout_correction.rollout_rs=token_k1",
    "algorithm.rollout_correction.rollout_rs_threshold=0.5_2.0",
]
MASKS = [[1, 1, 1, 0, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1]]


def scores_of(rows):
    return {"rm_scores": nest(torch.tensor(row) for row in rows)}


LAST = scores_of(
    [[0.0] * (len(row) - 1) + [reward] for row, reward in zip(MASKS, (1.0, 0, 0, 2), strict=True)]
)
NAMED = "+algorithm.gdpo_reward_keys=[right,format]"
MT_GRPO = ["algorithm.adv_estimator=credit_mt_grpo", *REJECTS]


def test_turns_are_those_before_rejection(monkeypatch, configured):
    """Row 0 has two turns; were a rejected token a tool's, it would have three."""
    found, _ = train_step(monkeypatch, configured, MASKS, [(0, 1)], dict(LAST), *MT_GRPO)
    plain, _ = train_step(monkeypatch, configured, MASKS, [], dict(LAST), *MT_GRPO)
    plain[0][1] = 0.0
    for own, other in zip(found, plain, strict=True):
        torch.testing.assert_close(own, other)
    assert plain[0][5] > plain[0][0] > 0.5  # the reward is the second turn's


@pytest.mark.parametrize("name", ["reinforce_plus_plus", "mt_grpo", "process_grpo"])
def test_the_reward_of_a_rejected_last_token_is_not_lost(monkeypatch, configured, name):
    given = [f"algorithm.adv_estimator=credit_{name}", *REJECTS]
    found, _ = train_step(monkeypatch, configured, MASKS, [(0, 5)], dict(LAST), *given)
    index = np.array(["p0", "p0", "p1", "p1"], dtype=object)
    rewards, mask = (torch.zeros(4, 6, dtype=kind) for kind in (torch.float32, torch.long))
    for row, (own, last) in enumerate(zip(MASKS, (4, 5, 3, 3), strict=True)):
        mask[row, : len(own)] = torch.tensor(own)
        rewards[row, last] = (1.0, 0.0, 0.0, 2.0)[row]
    mask[0, 5] = 0  # as if the reward had lain on the token before it
    expected, _ = call(name, rewards, mask, index)
    for row, own in enumerate(found):
        torch.testing.assert_close(own, expected[row, : len(own)])
    assert found[0][0].abs() > 0.1


@pytest.mark.parametrize("source", ["turn_scores", "tool_rewards"])
def test_scores_of_an_agent_loop_are_read_by_name(monkeypatch, configured, source):
    fields = [{source: row} for row in ([1.0, 0.0], [3.0, 0.5], [0.25], [])]
    columns = {**LAST, "extra_fields": NonTensorStack(*fields)}
    given = [*MT_GRPO, f"+algorithm.credit.token_rewards={source}"]
    found, _ = train_step(monkeypatch, configured, MASKS, [(0, 2)], columns, *given)
    outcome = np.array([1, -1, -1, 1]) / np.sqrt(2)
    first, second = np.array([-1, 1, 1, -1]) / np.sqrt(2), np.array([-1, 1, 0, 0]) / np.sqrt(2)
    for row, own in enumerate(found):
        assert own[0] == pytest.approx(outcome[row] + first[row], abs=1e-4)
        assert own[-1] == pytest.approx(
            outcome[row] + (second if row < 2 else first)[row] * (row != 3), abs=1e-4
        )


def test_scores_that_an_estimator_of_turns_does_not_read_are_reported(monkeypatch, configured, caplog):
    extra._report_unread.cache_clear()
    columns = {**LAST, "extra_fields": NonTensorStack(*[{"tool_rewards": [1.0], "turn_scores": []}] * 4)}
    with caplog.at_level(logging.WARNING, "credit"):
        for _ in range(2):
            train_step(monkeypatch, configured, MASKS, [], dict(columns), *MT_GRPO)
        given = ["algorithm.adv_estimator=credit_reinforce_plus_plus"]
        train_step(monkeypatch, configured, MASKS, [], dict(columns), *given)
    (message,) = [record.getMessage() for record in caplog.records if "agent loop" in record.getMessage()]
    assert "credit_mt_grpo reads" in message
    assert "token_rewards=tool_rewards" in message


def test_batches_without_calls_of_tools_have_no_rewards_of_them(monkeypatch, configured):
    columns = {**LAST, "extra_fields": NonTensorStack(*[{"tool_rewards": []}] * 4)}
    given = [*MT_GRPO, "+algorithm.credit.token_rewards=tool_rewards"]
    found, _ = train_step(monkeypatch, configured, MASKS, [], columns, *given)
    assert found[0][0] == pytest.approx(np.sqrt(0.5), abs=1e-4)
    columns = {**LAST, "extra_fields": NonTensorStack(*[{"turn_scores": []}] * 4)}
    with pytest.raises(ValueError, match="which no row of this batch has"):
        train_step(
            monkeypatch,
            configured,
            MASKS,
            [],
            columns,
            *given[:-1],
            given[-1].replace("tool_rewards", "turn_scores"),
        )


def test_states_are_those_at_the_ends_of_turns_before_rejection(monkeypatch, configured):
    states = [[0, 0, 7, 0, 0, 8], [0, 7, 0, 0, 0, 9], [0, 0, 0, 7], [7, 0, 0, 8]]
    columns = {**LAST, "extra_fields": NonTensorStack(*[{"states": row} for row in states])}
    given = ["algorithm.adv_estimator=credit_gigpo", *REJECTS]
    found, _ = train_step(monkeypatch, configured, MASKS, [(0, 2)], dict(columns), *given)
    plain, _ = train_step(monkeypatch, configured, MASKS, [], dict(columns), *given)
    plain[0][2] = 0.0
    for own, other in zip(found, plain, strict=True):
        torch.testing.assert_close(own, other)
    assert plain[0][0] != plain[0][5]


def test_outside_of_v1_turns_after_rejection_are_refused():
    index, mask, drawn = draw(1)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": drawn, "response_mask": mask}, non_tensors={"uid": index}
    )
    config = {"rollout_correction": {"rollout_rs": "token_k1"}}
    with pytest.raises(ValueError, match="credit_mt_grpo needs turns, .* use a V1 trainer"):
        compute_advantage(data, "credit_mt_grpo", config=OmegaConf.create(config))
    compute_advantage(data, "credit_mt_grpo", config=OmegaConf.create({"rollout_correction": {}}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (MT_GRPO, "credit_mt_grpo needs turns, .* use a V1 trainer"),
        (["algorithm.adv_estimator=credit_gdpo", NAMED], "credit_gdpo needs several rewards, which .*use_v1"),
        ([*MT_GRPO, "+algorithm.credit.token_rewards=tool_rewards"], "credit_mt_grpo needs tool_rewards"),
    ],
)
def test_trainers_before_v1_refuse_what_they_do_not_hand_over(configured, overrides, message):
    trainer = object.__new__(RayPPOTrainer)
    with pytest.raises(ValueError, match=message):
        trainer.config = configured(*overrides)


# --- several rewards by name, and the rewards of greedy responses ----------------------------------------

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
