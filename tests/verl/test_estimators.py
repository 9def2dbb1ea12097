"""credit's estimators called as verl calls them, against verl's own grpo and against the core."""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

import credit
from credit.adapters.verl import extra, registry, rollouts, turns

VERL = {"credit": {"preset": "verl"}}


def batch(seed, *, outputs=1):
    """Groups of 1 to 6 sessions in a random order, ragged responses and masks with holes.

    Every third group has equal rewards. With several outputs, a session has 1 to `outputs` rows.
    """
    rng = np.random.default_rng(seed)
    keys, rewards = [], []
    for group in range(12):
        shared = rng.normal()
        for session in range(rng.integers(1, 7)):
            for output in range(rng.integers(1, outputs + 1)):
                keys.append(f"p{group}_{session}_{output}")
                rewards.append(shared if group % 3 == 0 else rng.normal())
    order = rng.permutation(len(keys))
    keys, rewards = [keys[i] for i in order], torch.tensor([rewards[i] for i in order]).float()
    lengths = rng.integers(1, 14, len(keys))
    mask = torch.tensor(np.arange(13) < lengths[:, None])
    holes = torch.tensor(rng.random(mask.shape) < 0.2)
    holes[:, 0] = False
    scores = torch.zeros(mask.shape)
    scores[torch.arange(len(keys)), torch.tensor(lengths - 1)] = rewards
    return keys, scores, (mask & ~holes).long()


def run(name, keys, scores, mask, config=None, through=compute_advantage_for_multi_trajectories):
    """What verl's trainer makes of a batch."""
    data = DataProto.from_dict(
        tensors={"token_level_rewards": scores.clone(), "response_mask": mask},
        non_tensors={"uid": np.array([key.split("_")[0] for key in keys], dtype=object)},
    )
    more = {"batch_keys": keys} if through is compute_advantage_for_multi_trajectories else {}
    result = through(data, adv_estimator=name, config=OmegaConf.create(config or {}), **more)
    assert torch.equal(result.batch["advantages"], result.batch["returns"])
    return result.batch["advantages"]


def step(keys, **fields):
    return rollouts.step_context(rollouts.StepContext(keys, [False] * len(keys), fields))


def test_returns_are_those_of_the_estimator_if_it_has_some():
    keys, scores, _ = batch(6)
    mask = (torch.arange(13) <= scores.abs().argmax(dim=1, keepdim=True)).long()
    index = np.array([key.split("_")[0] for key in keys], dtype=object)
    given = {"token_level_rewards": scores, "response_mask": mask, "index": index}
    function = core_algos.get_adv_estimator_fn("credit_reinforce_plus_plus")
    advantages, returns = function(**given, config={"credit": {"gamma": 0.9}})
    theirs = core_algos.get_adv_estimator_fn("reinforce_plus_plus")(
        **given, config=SimpleNamespace(gamma=0.9)
    )
    torch.testing.assert_close(advantages, theirs[0], rtol=1e-5, atol=3e-6)
    torch.testing.assert_close(returns, theirs[1], rtol=1e-5, atol=3e-6)
    assert not torch.allclose(advantages, returns, atol=0.1)


def where_rewards_differ(keys, scores):
    """Whether the rewards of a row's group differ, among the last outputs of its sessions."""
    last = {}
    for key, score in zip(keys, scores.sum(-1).tolist(), strict=True):
        session, output = key.rsplit("_", 1)
        last[session] = max(last.get(session, (-1, 0.0)), (int(output), score))
    values = {}
    for session, (_, score) in last.items():
        values.setdefault(session.split("_")[0], set()).add(score)
    return torch.tensor([len(values[key.split("_")[0]]) > 1 for key in keys])


def test_importing_verl_registers_the_estimators():
    code = (
        "import verl; from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as known; print(*known)"
    )
    plain = os.environ | {"VERL_USE_EXTERNAL_MODULES": ""}
    result = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True
    )
    ours = {f"credit_{name}" for name in ("dapo", "dgpo", "dr_grpo", "grpo", "rloo")}
    assert ours <= set(result.stdout.split())


@pytest.mark.parametrize("seed", range(20))
def test_the_preset_equals_verls_grpo_where_rewards_differ_and_is_zero_elsewhere(seed):
    keys, scores, mask = batch(seed)
    ours = run("credit_grpo", keys, scores, mask, VERL, compute_advantage)
    theirs = run("grpo", keys, scores, mask, through=compute_advantage)
    differ = where_rewards_differ(keys, scores)
    assert 0 < differ.sum() < len(differ)
    torch.testing.assert_close(ours[differ], theirs[differ], rtol=0, atol=1e-6)
    assert ours[differ].abs().max() > 0.5
    assert (ours[~differ] == 0).all()
    assert (ours[mask == 0] == 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_sessions_with_several_outputs_equal_verls_grpo(seed):
    keys, scores, mask = batch(seed, outputs=3)
    with step(keys):
        ours = run("credit_grpo", keys, scores, mask, VERL)
    theirs = run("grpo", keys, scores, mask)
    differ = where_rewards_differ(keys, scores)
    torch.testing.assert_close(ours[differ], theirs[differ], rtol=0, atol=1e-6)
    assert (ours[~differ] == 0).all()
    # One row, one member would be something else.
    assert not torch.allclose(run("credit_grpo", keys, scores, mask, VERL)[differ], theirs[differ], atol=1e-3)


def of_tokens(mask, seed=0):
    generator = torch.Generator().manual_seed(seed)
    deviation, entropy = torch.rand(2, *mask.shape, generator=generator)
    return {"deviation": deviation, "normalized_entropy": entropy}


@pytest.mark.parametrize("settings", [{}, {"tau": 0.1, "kappa": 0.5}, {"eps": 1e-3, "correction": 0}])
def test_advantages_equal_the_cores(settings):
    keys, scores, mask = batch(3)
    fields = of_tokens(mask)
    with step(keys, **fields) as given:
        ours = run("credit_dgpo", keys, scores, mask, {"credit": settings})
    groups = torch.tensor([int(key.split("_")[0][1:]) for key in keys])
    result = credit.DGPO(**settings)(credit.Rollouts(scores.sum(-1), groups, mask, **fields))
    assert torch.equal(ours, result.advantages)
    assert given.metrics == {f"credit/{name}": value.item() for name, value in result.metrics.items()}


def test_each_turn_keeps_its_own_credit():
    keys, scores, mask = batch(4)  # masks with holes, as tools leave them
    fields = of_tokens(mask)
    with step(keys, **fields):
        dgpo = run("credit_dgpo", keys, scores, mask, {"credit": {"tau": 0.1, "within": "turn"}})
        grpo = run("credit_grpo", keys, scores, mask)
    numbers = credit.tokens.turns(mask)
    assert numbers.max() > 1
    for turn in range(int(numbers.max()) + 1):
        own = mask * (numbers == turn)
        torch.testing.assert_close((dgpo * own).sum(-1), (grpo * own).sum(-1), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(dgpo, grpo, atol=1e-2)


def test_dgpo_spreads_a_sessions_advantage_over_each_of_its_outputs():
    keys, scores, mask = batch(5, outputs=3)
    fields = of_tokens(mask)
    with step(keys, **fields):
        dgpo = run("credit_dgpo", keys, scores, mask, {"credit": {"tau": 0.1}})
        grpo = run("credit_grpo", keys, scores, mask)
    lengths = mask.sum(-1)
    torch.testing.assert_close(dgpo.sum(-1) / lengths, grpo.sum(-1) / lengths, rtol=0, atol=1e-6)
    score = fields["deviation"] * fields["normalized_entropy"]
    weights = credit.tokens.redistribute(score, mask.bool(), 0.1)
    torch.testing.assert_close(dgpo, grpo * weights)


def test_a_mix_gives_sessions_the_sum_of_its_parts():
    keys, scores, mask = batch(5, outputs=3)
    parts = [[0.5, "grpo"], [-0.25, {"name": "mix", "parts": [[2, {"name": "dgpo", "tau": 0.1}]]}]]
    with step(keys, **of_tokens(mask)):
        mix = run("credit_mix", keys, scores, mask, {"credit": {"parts": parts}})
        grpo = run("credit_grpo", keys, scores, mask)
        dgpo = run("credit_dgpo", keys, scores, mask, {"credit": {"tau": 0.1}})
    torch.testing.assert_close(mix, 0.5 * grpo - 0.5 * dgpo)
    refused = {"credit": {"parts": [[1, "grpo"], [1, "gtpo"]]}}
    with step(keys, **of_tokens(mask)), pytest.raises(ValueError, match="gtpo computes its advantages as a"):
        run("credit_mix", keys, scores, mask, refused)


def test_an_estimator_that_is_no_product_refuses_sessions_with_several_outputs():
    class Whole(credit.GRPO):
        name: Literal["whole"] = "whole"

        def __call__(self, rollouts):
            return super().__call__(rollouts)

    registry.register_estimators()
    keys, scores, mask = batch(5, outputs=3)
    with step(keys), pytest.raises(ValueError, match="return one output per session"):
        run("credit_whole", keys, scores, mask)
    keys, scores, mask = batch(5)
    with step(keys):
        assert torch.equal(run("credit_whole", keys, scores, mask), run("credit_grpo", keys, scores, mask))


@pytest.mark.parametrize("name", ["entropy_shaped", "reinforce_plus_plus_baseline", "reinforce_plus_plus"])
def test_so_do_those_of_ours_that_are_no_product(name):
    keys, scores, mask = batch(5, outputs=3)
    with step(keys, **of_tokens(mask)), pytest.raises(ValueError, match="return one output per session"):
        run(f"credit_{name}", keys, scores, mask)


def test_rows_that_verl_made_up_change_nothing():
    keys, scores, mask = batch(1)
    fields = of_tokens(mask)
    with step(keys, **fields) as without:
        expected = run("credit_dgpo", keys, scores, mask)
    count = len(keys)
    keys = [*keys, "pad0_0_0", "pad0_1_0"]
    scores, mask = (torch.cat([x, torch.zeros(2, x.shape[1], dtype=x.dtype)]) for x in (scores, mask))
    fields = {name: torch.cat([x, torch.zeros(2, x.shape[1])]) for name, x in fields.items()}
    padded = rollouts.StepContext(keys, [row >= count for row in range(count + 2)], fields)
    with rollouts.step_context(padded):
        found = run("credit_dgpo", keys, scores, mask)
    assert torch.equal(found[:count], expected)
    assert (found[count:] == 0).all()
    assert padded.metrics == without.metrics


def test_a_users_own_estimator_and_progress():
    class Fading(credit.GRPO):
        name: Literal["fading"] = "fading"

        @property
        def needs(self):
            return ("progress",)

        def advantages(self, rollouts):
            return super().advantages(rollouts) * (1 - rollouts.progress)

    registry.register_estimators()
    keys, scores, mask = batch(2)
    with step(keys, progress=torch.tensor(0.75)):
        found = run("credit_fading", keys, scores, mask)
    torch.testing.assert_close(found, run("credit_grpo", keys, scores, mask) / 4)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("credit_dgpo", {}, "needs deviation, .* come with trainer.v1.trainer_mode=credit_sync"),
        ("credit_grpo", {"credit": {"tau": 1}}, "unknown setting 'tau'"),
    ],
)
def test_outside_of_our_trainer_errors_name_the_way_out(name, config, message):
    keys, scores, mask = batch(0)
    with pytest.raises(ValueError, match=message):
        run(name, keys, scores, mask, config)


def test_arrays_of_the_users_own_reach_the_estimator_by_name():
    class Scored(credit.Redistributing):
        name: Literal["scored"] = "scored"

        @property
        def needs(self):
            return ("extra.scores", "extra.hard", "token_rewards")

        def score(self, given):
            return given.extra["scores"] * given.extra["hard"][:, None] + given.token_rewards

    registry.register_estimators()
    keys, scores, mask = batch(7)
    given = {"extra.scores": of_tokens(mask)["deviation"], "extra.hard": torch.arange(len(keys)) / 9}
    with step(keys, **given):
        ours = run("credit_scored", keys, scores, mask)
    score = given["extra.scores"] * given["extra.hard"][:, None] + scores
    groups = torch.tensor([int(key.split("_")[0][1:]) for key in keys])
    expected = credit.DGPO(kappa=0)(credit.Rollouts(scores.sum(-1), groups, mask, deviation=score))
    torch.testing.assert_close(ours, expected.advantages)
    with step(keys), pytest.raises(ValueError, match="needs extra.scores, extra.hard, which this trainer"):
        run("credit_scored", keys, scores, mask)


def test_scores_of_turns_stand_on_their_last_tokens():
    mask = torch.tensor(
        [[1, 1, 0, 1, 1, 0], [1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]
    ).bool()
    found = turns.place_scores("turn_scores", [[2.0, 3.0], [5.0, 7.0], [], []], mask)
    assert found.tolist() == [[0, 2, 0, 0, 3, 0], [5, 0, 7, 0, 0, 0], [0] * 6, [0] * 6]
    with pytest.raises(
        ValueError, match="row 1 has 1 turn_scores for 3 turns, and nothing says to which they"
    ):
        turns.place_scores("turn_scores", [[], [1.0], [], []], mask)


class Queue:
    """The rows of a batch as verl's TransferQueue gives them: two real ones, and one that verl added."""

    keys, partition_id = ("p_0_0", "p_1_0", "pad_0_0"), "train"
    tags = ({}, {}, {"is_padding": True})

    def __init__(self, fields, number=0.5):
        responses = [torch.arange(3, 3 + length) for length in (2, 3, 1)]
        nested = torch.nested.as_nested_tensor(responses, layout=torch.jagged)
        self.data = {"responses": nested, "values": nested.float(), "extra_fields": NonTensorStack(*fields)}
        self.data |= {"extra_info": NonTensorStack({"hard": 1}, {"hard": number}, {"hard": 1})}

    def get(self, keys, partition_id, select_fields=None):
        names = self.data if select_fields is None else [n for n in select_fields if n in self.data]
        return TensorDict({name: self.data[name] for name in names}, batch_size=[3])


def reads(*names):
    return SimpleNamespace(required_fields=names, name="own")


FIELDS = [{"scores": [1, 2], "reward_extra_info": {"right": True}}, {"scores": [4, 5, 6.5]}]


def test_arrays_come_from_where_verls_users_put_them(monkeypatch):
    fields = [*FIELDS, FIELDS[0]]  # padding is a copy of the first row but for its response
    fields[1]["reward_extra_info"] = {"right": False}
    queue = Queue(fields)
    monkeypatch.setattr(extra.tq, "kv_batch_get", queue.get)
    names = ("extra.scores", "extra.right", "extra.hard", "extra.values", "extra.token_ids")
    found = extra.collect_arrays(reads(*names), queue)
    assert {name: array.tolist() for name, array in found.items()} == {
        "extra.scores": [[1, 2, 0], [4, 5, 6.5], [0, 0, 0]],
        "extra.right": [True, False, False],
        "extra.hard": [1, 0.5, 0],
        "extra.values": [[3, 4, 0], [3, 4, 5], [3, 0, 0]],
        "extra.token_ids": [[3, 4, 0], [3, 4, 5], [3, 0, 0]],
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "extra.other",
            "credit_own needs extra.other, but this batch has no 'other'; it has extra_fields, extra_info, "
            "hard, .*, scores, values. In verl it comes from extra_fields of an agent loop's output",
        ),
        ("extra.hard", "extra.hard of row 1 is None; expected a number, or numbers in one list or array"),
    ],
)
def test_what_the_batch_lacks_is_named(monkeypatch, name, message):
    queue = Queue([*FIELDS, FIELDS[0]], number=None)
    monkeypatch.setattr(extra.tq, "kv_batch_get", queue.get)
    with pytest.raises(ValueError, match=message):
        extra.collect_arrays(reads(name), queue)
