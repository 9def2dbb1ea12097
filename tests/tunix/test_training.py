"""Tunix's real learner, training with credit's estimators on one device and on a mesh of four."""

from collections import Counter
from types import SimpleNamespace
from typing import Literal

import given_rows
import jax
import numpy as np
import pytest
import tiny_llama
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import Mode, Role

import credit
from credit.adapters import table
from credit.adapters.tunix import CreditGRPOConfig, CreditGRPOLearner, log_extra, statistics
from credit.adapters.tunix.hooks import FRAMEWORK
from credit.fields import replace_arrays

SHARP = {"name": "dgpo", "tau": 0.01}
PARTS = {"mix": {"parts": [[0.7, {"name": "grpo"}], [0.3, SHARP]]}}
GROUP = 4


def same_weights(ours, theirs, tolerance=1e-6):
    pairs = zip(ours.weights(), theirs.weights(), strict=True)
    return all(np.abs(np.asarray(a) - np.asarray(b)).max() <= tolerance for a, b in pairs)


def rewards_of(example):
    """The share of low digits, from the ids that the learner gave to Tunix."""
    low = np.isin(example.completion_ids, tiny_llama.CharacterTokenizer().encode("01234"))
    text = np.asarray(example.completion_ids) >= 3
    return low.sum(axis=1) / np.maximum(text.sum(axis=1), 1)


def test_dgpo_trains_on_a_mesh_and_its_advantages_follow_from_float64(train, in_float64):
    run = train(SHARP, shape=(2, 2))
    assert run.cluster.actor_trainer.train_steps == len(run.log) == 3
    assert all(len(leaf.sharding.device_set) == 4 for leaf in run.weights())
    first, *later = run.log
    assert first["credit/kl_mean"] == 0.0 < later[0]["credit/kl_mean"]
    assert (first["credit/deviation_max"], first["credit/weight_std"]) == (0.0, 0.0)
    assert all(entry["credit/weight_std"] > 0.01 for entry in later)
    for step, (entry, example) in enumerate(zip(run.log, run.examples, strict=True)):
        assert entry["rewards/score/max"] > entry["rewards/score/min"]
        assert entry["credit/zero_variance_groups"] == 0.0
        mask = np.asarray(example.completion_mask)
        fields = in_float64(run.models(step), example)
        groups = np.arange(len(mask)) // GROUP
        given = credit.Rollouts(rewards_of(example), groups, mask, valid=mask.any(axis=1))
        rollouts = replace_arrays(given, fields)
        expected = credit.parse(SHARP)(rollouts)
        advantages = np.asarray(example.advantages)
        assert np.abs(advantages - expected.advantages).max() < 1e-4
        assert abs(entry["credit/deviation_mean"] - expected.metrics["deviation_mean"]) < 1e-6
        for name in ("kl", "entropy"):
            assert abs(entry[f"credit/{name}_mean"] - fields[f"extra.{name}"][mask].mean()) < 1e-5
        assert abs(entry["credit/gate_mean"] - expected.metrics["gate_mean"]) < 1e-6
        # The weights average 1: a response keeps the advantage that GRPO gives it.
        plain = credit.GRPO()(rollouts).advantages
        assert np.abs(advantages.sum(axis=1) - plain.sum(axis=1)).max() < 1e-4


def test_dgpo_at_its_reference_is_grpo_and_grpo_is_tunix_own(train):
    theirs = train(None, GRPOLearner, config=GRPOConfig(num_generations=GROUP, beta=0.0), steps=1)
    named = GRPOConfig(num_generations=GROUP, beta=0.0, advantage_estimator="credit/grpo")
    assert same_weights(train(None, GRPOLearner, config=named, steps=1), theirs)
    grpo = train("grpo", steps=1)
    assert same_weights(grpo, theirs)
    assert same_weights(train(SHARP, steps=1), theirs)
    assert np.asarray(grpo.examples[0].advantages).ndim == 2
    assert not same_weights(grpo, SimpleNamespace(weights=lambda: jax.tree.leaves(grpo.actors[0])), 1e-3)


@pytest.fixture(scope="module")
def cluster(make_cluster):
    """One for all estimators, so that it is compiled once."""
    return make_cluster()


FED = [name for name, each in table.list_estimators().items() if not table.list_missing(FRAMEWORK, each)]


@pytest.mark.parametrize("name", [*FED, "mix"])
def test_every_estimator_gives_tunix_advantages_per_token(cluster, low_digits, monkeypatch, name):
    sampled, generate = [], cluster.generate
    monkeypatch.setattr(
        cluster, "generate", lambda *a, **named: sampled.append(generate(*a, **named)) or sampled[-1]
    )

    def logged(**named):
        ids = [np.asarray(row) for row in sampled[-1].tokens]
        responses = [row[row != cluster.rollout.pad_id()] for row in ids]
        for array, rows in given_rows.make_rows(responses).items():
            log_extra(array, rows)
        return low_digits(**named)

    config = CreditGRPOConfig(estimator={"name": name, **PARTS.get(name, {})}, num_generations=GROUP)
    learner = CreditGRPOLearner(cluster, config, logged)
    learner._rollout_micro_batch_size = learner._compute_logps_micro_batch_size = 2
    example = learner._generate_and_compute_advantage(
        {"prompts": ["12>"] * GROUP + ["3>"] * GROUP}, Mode.TRAIN
    )
    advantages = np.asarray(example.advantages)
    assert advantages.shape == example.completion_mask.shape
    assert np.isfinite(advantages).all()
    assert np.abs(advantages).max() > 0


@pytest.mark.parametrize(
    ("settings", "ours", "theirs"),
    [
        ({"beta": 0.0}, {"policy": 1, "reference": 1}, {}),
        ({"beta": 0.04}, {"policy": 1, "reference": 2}, {"reference": 1}),
        ({"beta": 0.04, "num_iterations": 2}, {"policy": 2, "reference": 2}, {"policy": 1, "reference": 1}),
    ],
    ids=["no KL term", "KL term", "and two iterations"],
)
def test_dgpo_makes_a_pass_of_each_model_beside_tunix_own(
    cluster, low_digits, monkeypatch, settings, ours, theirs
):
    """Tunix's passes are compiled with what makes log-probs of logits, and hand over nothing else."""
    passes, score = Counter(), statistics.score_rows

    def score_rows(graphs, *arguments):
        passes.update(["policy", "reference"][: len(graphs)])
        return score(graphs, *arguments)

    monkeypatch.setattr(statistics, "score_rows", score_rows)
    for name, method in (("policy", "get_old_per_token_logps"), ("reference", "get_ref_per_token_logps")):
        run = getattr(cluster, method)
        monkeypatch.setattr(
            cluster, method, lambda name=name, run=run, **given: passes.update([name]) or run(**given)
        )

    def count(kind, config):
        passes.clear()
        learner = kind(cluster, config, low_digits)
        learner._rollout_micro_batch_size = learner._compute_logps_micro_batch_size = 2
        learner._generate_and_compute_advantage({"prompts": ["12>"] * GROUP + ["3>"] * GROUP}, Mode.TRAIN)
        return passes

    assert (
        count(CreditGRPOLearner, CreditGRPOConfig(estimator="dgpo", num_generations=GROUP, **settings))
        == ours
    )
    assert count(GRPOLearner, GRPOConfig(num_generations=GROUP, **settings)) == theirs


def test_lora_compares_with_the_model_without_it(train):
    run = train(SHARP, shape=(2, 2), lora=True)
    assert run.log[0]["credit/deviation_max"] == 0.0
    assert run.log[2]["credit/deviation_mean"] > 0
    assert run.log[2]["credit/weight_std"] > 0


def test_dapo_filters_groups_and_punishes_overlong_completions(train):
    def flat_for_one_prompt(prompts, completions, **_):
        pairs = zip(prompts, completions, strict=True)
        return [0.5 if prompt == "12>" else len(set(text)) / 8 for prompt, text in pairs]

    config = CreditGRPOConfig.dapo(num_generations=GROUP, overlong_cache=6, overlong_penalty=2.0)
    assert (config.beta, config.epsilon_high, config.loss_agg_mode) == (0.0, 0.28, "token-mean")
    run = train(None, reward=flat_for_one_prompt, config=config, steps=1)
    (example,), (entry,) = run.examples, run.log
    mask = np.asarray(example.completion_ids) != 0
    kept = np.asarray(example.completion_mask)
    assert not kept[:GROUP].any()
    assert (kept[GROUP:] == mask[GROUP:]).all()
    penalty = -2.0 * np.clip(mask.sum(axis=1) - 6, 0, 6) / 6
    assert penalty.min() < 0
    assert entry["credit/overlong_penalty_mean"] == pytest.approx(penalty.mean())
    assert entry["credit/zero_variance_groups"] == 0.0 or penalty[:GROUP].std() == 0
    texts = [tiny_llama.CharacterTokenizer().decode(row) for row in np.asarray(example.completion_ids)]
    rewards = np.array(flat_for_one_prompt(["12>"] * GROUP + ["3>"] * GROUP, texts)) + penalty
    expected = credit.DAPO()(credit.Rollouts(rewards, np.arange(8) // GROUP, mask)).advantages
    assert np.abs(np.asarray(example.advantages) - expected).max() < 1e-5


def test_a_schedule_follows_the_training(train):
    gates = [
        entry["credit/gate_mean"]
        for entry in train({"name": "dgpo", "kappa": {"start": 0.0, "end": 8.0}}).log
    ]
    assert gates[0] == 1.0
    assert gates == sorted(gates, reverse=True)
    assert gates[2] < gates[1]


def apart(mesh_of):
    """A sampler on devices of its own, which Tunix then runs beside the trainer."""
    return {
        "shape": (1, 2),
        "meshes": {Role.ROLLOUT: mesh_of(1, 2, first=2)},
    }


def test_a_sampler_on_its_own_mesh_is_followed_while_the_weights_agree(train, mesh_of):
    run = train(SHARP, **apart(mesh_of), steps=2)
    assert run.log[0]["credit/deviation_max"] == 0.0
    assert run.log[1]["credit/deviation_mean"] > 0


def test_weights_that_moved_since_the_sampling_are_refused(train, mesh_of):
    settings = apart(mesh_of) | {"training": {"mini_batch_size": 2}}
    with pytest.raises(ValueError, match="sampled 1 updates ago by weights that no longer exist"):
        train(SHARP, **settings, prompts=4)
    assert len(train("grpo", **settings, prompts=4, steps=2).log) >= 1


def test_a_users_estimator_trains_by_its_name_without_a_reference(train):
    class EntropyOnly(credit.Redistributing):
        name: Literal["entropy_only"] = "entropy_only"

        @property
        def needs(self):
            return ("normalized_entropy", *self.turn_fields)

        def score(self, rollouts):
            return rollouts.normalized_entropy

    run = train({"name": "entropy_only", "tau": 0.01}, reference=False, steps=1)
    assert run.log[0]["credit/weight_std"] > 0.01
