"""Tunix's agentic learner: agents of two turns over the tiny Llama, with credit's estimators."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from tunix.rl.rl_cluster import Role
from two_turns import GROUP, WIDTH, Plain, TwoTurns, low_share

import credit
from credit.adapters.tunix import (
    CreditAgenticGRPOConfig,
    CreditAgenticGRPOLearner,
    log_extra,
)
from credit.fields import replace_arrays

SHARP = {"name": "dgpo", "tau": 0.01}


@dataclass
class Run:
    """What a training run left behind."""

    cluster: Any
    log: list[dict[str, Any]] = field(default_factory=list)
    batches: list[Any] = field(default_factory=list)  # trajectories, example and the actor's weights
    anchors: list[Any] = field(default_factory=list)  # what the sampler has, where it is on its own
    learner: Any = None

    def weights(self):
        return np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves(nnx.state(self.cluster.actor_trainer.model))]
        )

    def models(self, state):
        actor = nnx.split(self.cluster.actor_trainer.model)[0], state
        reference = nnx.split(self.cluster.inference_worker.get_model("reference"))
        return [nnx.merge(graph, jax.tree.map(np.array, state)) for graph, state in (actor, reference)]


@pytest.fixture
def act(make_cluster):
    """Trains agents, and returns what happened."""

    def run(
        estimator, *, reward=None, prompts=2, steps=2, config=None, kind=CreditAgenticGRPOLearner, **settings
    ):
        sampling = {"max_tokens_to_generate": WIDTH, "max_prompt_length": 32, "kv_cache_size": 64}
        cluster = make_cluster(steps=steps, return_logprobs=True, **sampling, **settings)
        given = {"num_generations": GROUP, "beta": 0.0, "max_response_length": WIDTH, "max_concurrency": 1}
        config = CreditAgenticGRPOConfig(estimator=estimator, **(given | (config or {})))
        found, generate, seeds = Run(cluster), cluster.generate, iter(range(10**6))

        def seeded(*arguments, **named):
            # Tunix's sampler gives every response of a group the same noise, unless its seed changes.
            cluster.cluster_config.rollout_config.seed = next(seeds)
            named["max_generation_steps"] = min(named["max_generation_steps"], 8)
            return generate(*arguments, **named)

        cluster.generate = seeded

        class Witness(kind):
            def _process_results(self, trajectories, mode, expected_step=None):
                cluster = self.rl_cluster
                state = jax.tree.map(np.array, nnx.state(cluster.actor_trainer.model))
                found.anchors.append(jax.tree.map(np.array, cluster._anchor_policy_state))
                (example,) = super()._process_results(trajectories, mode, expected_step)
                found.batches.append(SimpleNamespace(group=trajectories, example=example, actor=state))
                return [example]

        cluster.with_external_metrics_logger(lambda buffer: found.log.append(dict(buffer.metrics)))
        found.learner = Witness(cluster, config, reward, chat_parser=Plain(), env_class=TwoTurns)
        names = ("12>", "3>", "407>", "95>")
        found.learner.train(
            {"prompts": np.array([names[(step + i) % 4] for i in range(prompts)])} for step in range(steps)
        )
        return found

    return run


def expect(estimator, batch, rewards, **fields):
    """The advantages that the core gives the trajectories of a batch."""
    mask = np.asarray(batch.example.completion_mask) > 0
    given = credit.Rollouts(np.asarray(rewards, np.float64), np.arange(len(mask)) // GROUP, mask)
    return np.asarray(credit.parse(estimator)(replace_arrays(given, fields)).advantages)


def texts_of(batch):
    """The answers of each agent, from its conversation."""
    return [
        [each["content"] for each in item.traj["conversation_text"] if each["role"] == "assistant"]
        for item in batch.group
    ]


def shares_of(batch):
    """What the environment paid for each answer, [N, 2]."""
    return np.array([[low_share(first), low_share(second) / 2] for first, second in texts_of(batch)])


def assert_equal(batch, expected, tolerance=1e-4):
    assert np.abs(expected).max() > 0.1
    assert np.abs(np.asarray(batch.example.advantages) - expected).max() < tolerance


def test_dgpo_trains_agents_and_its_advantages_follow_from_float64(act, in_float64):
    run = act(SHARP, steps=2, config={"sampler_is": "token"})
    assert run.cluster.actor_trainer.train_steps == 2
    assert len(run.batches) == 4
    for batch in run.batches:
        mask = np.asarray(batch.example.completion_mask) > 0
        assert (np.diff(mask.astype(int), axis=1) == 1).any()  # the environment's tokens are a hole
        assert batch.example.sampler_is_weights is not None
        fields = in_float64(run.models(batch.actor), batch.example)
        assert_equal(batch, expect(SHARP, batch, shares_of(batch).sum(axis=1), **fields))
    metrics = {name: values for entry in run.log for name, (values, _) in entry.items()}
    assert {"credit/deviation_mean", "credit/kl_mean", "credit/statistics_seconds"} <= metrics.keys()
    first, second = (np.concatenate([b.example.advantages for b in run.batches[k : k + 2]]) for k in (0, 2))
    plain = [expect("grpo", b, shares_of(b).sum(axis=1)) for b in run.batches]
    assert np.abs(first - np.concatenate(plain[:2])).max() < 1e-5  # actor and reference are one
    assert np.abs(second - np.concatenate(plain[2:])).max() > 1e-2


@pytest.mark.parametrize("functions", [0, 1])
def test_turns_are_credited_by_the_rewards_of_their_steps(act, functions):
    def count_digits(completions, **_):
        return [float(len(text)) for text in completions]

    run = act("mt_grpo", steps=1, reward=[count_digits][:functions] or None)
    for batch in run.batches:
        mask, steps = np.asarray(batch.example.completion_mask) > 0, shares_of(batch)
        turns = np.asarray(credit.tokens.turns(mask))
        rewards = np.zeros(mask.shape)
        for row in range(len(mask)):
            for turn in (0, 1):
                rewards[row, np.flatnonzero(mask[row] & (turns[row] == turn))[-1]] = steps[row, turn]
        outcome = [float(len(first)) for first, _ in texts_of(batch)] if functions else steps.sum(axis=1)
        expected = expect("mt_grpo", batch, outcome, token_rewards=rewards, turns=np.where(mask, turns, 0))
        assert_equal(batch, expected)
        assert (np.abs(np.diff(expected, axis=1)) > 1e-3).any()


def test_gdpo_weighs_each_function_and_the_environment_over_several_groups(act):
    def longest(completions, **_):
        log_extra("unread", [0.0] * len(completions))
        return [None if len(text) < 7 else float(len(text)) for text in completions]

    def commas(completions, **_):
        return [text.count(",") * 100.0 for text in completions]

    together = {"mini_batch_size": 2, "train_micro_batch_size": 2, "compute_logps_micro_batch_size": 2}
    run = act("gdpo", steps=1, reward=[longest, commas], training=together)
    (batch,) = run.batches
    first = [each[0] for each in texts_of(batch)]
    counted = np.array([np.nan if len(text) < 7 else len(text) for text in first])
    rewards = [counted, [text.count(",") * 100.0 for text in first], shares_of(batch).sum(axis=1)]
    assert_equal(batch, expect("gdpo", batch, np.stack(rewards, axis=1)))


def test_in_micro_batches_dapo_makes_the_update_of_the_whole_step(act):
    def flat_for_one_prompt(prompts, completions, **_):
        pairs = zip(prompts, completions, strict=True)
        return [0.5 if prompt == "12>" else len(set(text)) for prompt, text in pairs]

    settings = CreditAgenticGRPOConfig.dapo(max_response_length=WIDTH, num_generations=GROUP)
    dapo = {name: getattr(settings, name) for name in ("epsilon_high", "loss_agg_mode", "filter_groups")}
    starts, runs = [], []
    for training in ({}, {"mini_batch_size": 2, "train_micro_batch_size": 1}):
        by_function = {"name": "dapo", "filter_by": 0}
        runs.append(act(by_function, reward=flat_for_one_prompt, steps=1, config=dapo, training=training))
        starts.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(runs[-1].batches[0].actor)]))
    whole, micro = (run.weights() - start for run, start in zip(runs, starts, strict=True))
    kept = [np.asarray(batch.example.completion_mask).any() for batch in runs[1].batches]
    assert sorted(kept) == [False, True]
    assert runs[1].cluster.actor_trainer.train_steps == 1
    assert np.abs(whole).max() > 1e-3
    assert np.abs(micro - whole).max() < 1e-5 * np.abs(whole).max() + 1e-7


def test_a_sampler_of_its_own_is_scored_by_the_weights_that_it_has(act, in_float64, mesh_of):
    apart = {"meshes": {Role.ROLLOUT: mesh_of(1, 1, first=1)}}
    halves = {"mini_batch_size": 1, "train_micro_batch_size": 1}
    run = act(SHARP, steps=2, training=halves, **apart)
    assert run.learner.should_sync_weights
    assert run.cluster.actor_trainer.train_steps == 4
    first, second = run.batches[:2], run.batches[2:]
    for batch in second:  # the weights that were synchronized before both halves of the batch were sampled
        fields = in_float64(run.models(run.anchors[2]), batch.example)
        assert_equal(batch, expect(SHARP, batch, shares_of(batch).sum(axis=1), **fields))
    for batch in first:
        assert_equal(batch, expect("grpo", batch, shares_of(batch).sum(axis=1)))


def test_weights_that_move_while_agents_act_are_refused(act):
    with pytest.raises(
        ValueError, match="mini_batch_size=1 trains on a part of the 2 prompts of a batch while"
    ):
        act(SHARP, training={"mini_batch_size": 1})
