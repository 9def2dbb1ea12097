"""verl's whole V1 pipeline, with the estimator in its config, by the example's own command."""

import pytest
import turn_witness
from training_runs import run_training, with_agent_loop


@pytest.fixture
def train(tmp_path):
    """Trains in the test's folder."""
    return lambda estimator, *overrides: run_training(tmp_path, estimator, *overrides)


def starts_at_its_reference_and_leaves_it(log):
    first, *later = log
    assert first["credit/deviation_max"] == first["credit/kl_mean"] == 0.0
    assert (first["credit/weight_min"], first["credit/weight_max"]) == (1.0, 1.0)
    for entry in later:
        assert entry["credit/deviation_mean"] > 1e-6
        assert entry["credit/kl_mean"] > 1e-6
        assert entry["credit/weight_std"] > 0
    for entry in log:  # verl's own is over the micro-batches' rows
        assert entry["credit/entropy_mean"] == pytest.approx(entry["actor/entropy"], rel=0.05)


def test_dgpo_on_two_ranks_with_filtered_groups_padding_and_a_users_estimator(recorded_run):
    _, log, printed = recorded_run
    starts_at_its_reference_and_leaves_it(log)
    assert "Upsampled batch from 16 to 24 with 8 synthetic padding samples" in printed
    for entry in log:
        assert entry["credit/weights_mean"] == pytest.approx(1.0, abs=1e-6)
        assert entry["credit/rows_seen"] == 16
        assert entry["credit/zero_variance_groups"] == 0.0
        assert entry["credit/fed"] >= 18
        for array in ("tokens", "responses", "turns"):
            assert entry[f"credit/error_of_{array}"] < 1e-5
    assert "training/filter_groups/evicted_samples" in set().union(*log)


def test_rewards_of_tokens_in_three_turns_with_kl_and_rejection(train, tmp_path):
    log, printed = train(
        "grpo",
        "algorithm.adv_estimator=credit_turn_witness",
        f"+algorithm.credit.gamma={turn_witness.GAMMA}",
        "algorithm.use_kl_in_reward=True",
        f"algorithm.kl_ctrl.kl_coef={turn_witness.COEFFICIENT}",
        "algorithm.rollout_correction.rollout_rs=token_k1",
        "algorithm.rollout_correction.rollout_rs_threshold=0.1_10.0",
        *with_agent_loop(tmp_path, "turns_loop.TurnsLoop"),
        "actor_rollout_ref.model.external_lib=turn_witness",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    )
    for entry in log:
        assert entry["credit/rejected"] > 0
        assert entry["credit/turns_max"] == 3
        assert entry["credit/holes"] == 2 * 16
        assert entry["credit/error_of_mask"] == entry["credit/error_of_turns"] == 0
        for of in ("rewards", "returns", "advantages"):
            assert entry[f"credit/error_of_{of}"] < 2e-5
    assert max(entry["credit/penalty_max"] for entry in log) > 1e-3
    assert (
        "credit_turn_witness reads the rewards of turns in verl's token_level_rewards, and not the "
        in printed
    )


def test_dgpo_with_lora_and_partial_rollouts_on_two_rewards_by_name(train):
    log, _ = train(
        "dgpo",
        "+algorithm.credit.base={name:gdpo}",
        "+algorithm.gdpo_reward_keys=[score,doubled]",
        "+algorithm.gdpo_reward_weights=[1.0,0.5]",
        "trainer.v1.trainer_mode=credit_colocate_async",
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.model.lora.merge=True",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    )
    starts_at_its_reference_and_leaves_it(log)


def test_dgpo_with_rollouts_on_servers_of_their_own(train):
    log, _ = train(
        "dgpo",
        "trainer.v1.trainer_mode=credit_separate_async",
        "trainer.v1.separate_async.parameter_sync_step=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.rollout.checkpoint_engine.backend=ray_cpu",
        "actor_rollout_ref.rollout.nnodes=1",
        "++ray_kwargs.ray_init.num_gpus=2",
    )
    # The first step's second half is scored with the weights that it was sampled with, put aside till then.
    starts_at_its_reference_and_leaves_it(log)
    first, *later = (entry["credit/drift_alignment"] for entry in log)
    assert first == 0.0
    assert max(map(abs, later)) > 1e-6


@pytest.mark.slow
def test_entropy_alone_on_verls_trainer_before_v1(train):
    train(
        "grpo",
        "algorithm.adv_estimator=credit_top_entropy",
        "trainer.use_v1=False",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    )


@pytest.mark.slow
def test_dgpo_from_sampled_log_probs_alone(train):
    log, _ = train(
        "dgpo", "+algorithm.credit.divergence=binary", "actor_rollout_ref.actor.ppo_mini_batch_size=4"
    )
    # Two passes in micro-batches of their own: equal models need not agree to the last bit.
    assert log[0]["credit/deviation_max"] < 1e-9
    for entry in log[1:]:
        assert entry["credit/deviation_mean"] > 1e-6


@pytest.mark.slow
def test_dapo_of_verls_parts_on_verls_own_trainer(train):
    log, _ = train("dapo", "actor_rollout_ref.actor.ppo_mini_batch_size=4")
    for entry in log:
        assert entry["credit/zero_variance_groups"] == 0.0
        assert entry["credit/effective_token_fraction"] == 1.0
    # Nothing but overlong shaping takes a reward below 0.
    assert min(entry["critic/score/min"] for entry in log) < 0
