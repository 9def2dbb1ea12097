"""What slime's batches hold besides ordinary samples: rewards that are missing, rollouts with several samples."""

import numpy as np
import pytest
import slime_batch
import torch
from slime_actor import loss_function

import credit

CLOSE = 2e-5
GROUP = slime_batch.GROUP


@pytest.fixture
def samples():
    return slime_batch.make_samples()


@pytest.fixture
def assign(megatron, samples):
    """slime's fields after credit's function, for those samples or others."""

    def run(name="grpo", others=None, settings=(), change=None, **given):
        chosen = samples if others is None else others
        args = slime_batch.name_args(name, chosen, settings, **given)
        slime_batch.forget_process()
        return slime_batch.assign(args, slime_batch.make_models(), chosen, change=change)

    return run


def padded(data):
    """The advantages [N, T] of one process."""
    return torch.nn.utils.rnn.pad_sequence(data["advantages"], batch_first=True).double().numpy()


def expected(estimator, samples):
    """Advantages [N, T] by the oracle, of an estimator of rewards alone."""
    statistics = [{"log_probs": np.zeros(len(sample["mask"]))} for sample in samples]
    return slime_batch.expect(estimator, slime_batch.make_rollouts(samples, statistics))


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_a_sample_without_a_finite_reward_takes_no_part(assign, samples, missing):
    samples[5]["reward"] = missing
    data = assign()
    given = [s | {"reward": np.nan if s is samples[5] else s["reward"]} for s in samples]
    np.testing.assert_allclose(padded(data), expected(credit.GRPO(), given), atol=CLOSE)
    assert not data["loss_masks"][5].any()
    assert data["credit/invalid_rows"] == 1
    assert all(
        data["loss_masks"][row].tolist() == samples[row]["mask"] for row in range(len(samples)) if row != 5
    )


def test_rewards_of_large_size_keep_what_tells_them_apart(assign, samples):
    for sample in samples:
        sample["reward"] += 1e8
    np.testing.assert_allclose(padded(assign()), expected(credit.GRPO(), samples), atol=CLOSE)


@pytest.mark.parametrize("reward", [{"accuracy": 1.0}, [1.0, 0.0]])
def test_several_rewards_of_a_sample_are_refused(assign, samples, reward):
    samples[0]["reward"] = reward
    with pytest.raises(
        ValueError, match="the reward of a sample is .*; name one by --reward-key, or combine"
    ):
        assign()


def test_a_reward_of_none_can_be_logged(assign, samples):
    """slime adds up what is in these lists."""
    samples[5]["reward"] = None
    data = assign()
    assert np.isnan(data["rewards"][5])
    assert np.isnan(data["raw_reward"][5])
    assert np.isnan(sum(data["rewards"]))


@pytest.mark.parametrize("indices", [None, [None] * 16])
def test_samples_whose_prompt_nobody_knows_are_refused(assign, indices):
    with pytest.raises(ValueError, match="some samples have no index; let each Sample keep the index"):
        assign(change=lambda data: data.update(sample_indices=indices))


def test_slime_0_3_1_does_not_say_where_its_samples_stand_in_the_batch(assign, samples):
    data = assign(change=lambda data: data.pop("partition"))
    np.testing.assert_allclose(padded(data), expected(credit.GRPO(), samples), atol=CLOSE)


def split(samples, place, parts, rewards):
    """The rollout of that sample as several, which slime gets of agents."""
    whole = samples[place]
    siblings = [
        whole | {"reward": reward, "rollout_id": place, "index": whole["index"]} for reward in rewards
    ]
    others = [sample | {"rollout_id": row} for row, sample in enumerate(samples)]
    return [*others[:place], *siblings[:parts], *others[place + 1 :]]


def test_a_rollout_with_several_samples_counts_once(assign, samples):
    reward = samples[5]["reward"]
    several = split(samples, 5, 3, [reward] * 3)
    given = {"rollout_batch_size": 4, "global_batch_size": 16}
    found = padded(assign(others=several, **given))
    once = expected(credit.GRPO(), samples)
    order = [*range(5), 5, 5, 5, *range(6, 16)]
    np.testing.assert_allclose(found, once[order], atol=CLOSE)


def test_samples_of_a_rollout_with_different_rewards_are_refused(assign, samples):
    several = split(samples, 5, 2, [1.0, 0.5])
    with pytest.raises(
        ValueError, match="samples of rollout_id 5 have the rewards 1 and 0.5, .* give all of its"
    ):
        assign(others=several, rollout_batch_size=4, global_batch_size=16)


def test_groups_are_those_of_prompts_in_any_order(assign, samples):
    order = np.random.default_rng(1).permutation(len(samples))
    mixed = [samples[row] for row in order]
    np.testing.assert_allclose(
        padded(assign(others=mixed)), expected(credit.GRPO(), samples)[order], atol=CLOSE
    )


def test_turns_are_the_runs_of_the_mask(assign, samples):
    settings = {"tau": 0.05, "within": "turn"}
    data = assign("dgpo", settings=settings, **slime_batch.HOOKED)
    statistics = list(slime_batch.score(slime_batch.make_models(), samples, 1.0))
    rollouts = slime_batch.make_rollouts(samples, statistics)
    right = credit.DGPO(**settings)(rollouts).advantages  # the oracle knows whole responses alone
    np.testing.assert_allclose(padded(data), right, atol=CLOSE)


@pytest.mark.parametrize(("first", "number", "progress"), [(0, 10, 0.0), (5, 10, 0.5), (20, 10, 1.0)])
def test_a_schedule_follows_the_rollouts(assign, samples, first, number, progress):
    settings = {"tau": {"start": 1.0, "end": 0.01}}
    given = slime_batch.HOOKED | {"start_rollout_id": first, "num_rollout": number}
    data = assign("dgpo", settings=settings, **given)
    statistics = list(slime_batch.score(slime_batch.make_models(), samples, 1.0))
    tau = 1.0 + (0.01 - 1.0) * progress
    right = slime_batch.expect(credit.DGPO(tau=tau), slime_batch.make_rollouts(samples, statistics))
    np.testing.assert_allclose(padded(data), right, atol=CLOSE)


def test_metrics_stand_where_slime_logs_them(assign):
    data = assign("dgpo", settings={"tau": 0.05}, **slime_batch.HOOKED)
    logged = {name: value.item() for name, value in data.items() if name.startswith("credit/")}
    assert {"credit/deviation_mean", "credit/weight_max", "credit/entropy_mean", "credit/kl_mean"} <= set(
        logged
    )
    assert logged["credit/deviation_mean"] > 1e-3
    assert all(value.ndim == 0 for name, value in data.items() if name.startswith("credit/"))


def test_the_loss_takes_the_advantages(assign):
    """slime's own loss, of logits whose log-probs are those that it has stored."""
    data = assign("dgpo", settings={"tau": 0.05}, **slime_batch.HOOKED)
    batch = {name: data[name] for name in ("total_lengths", "response_lengths", "loss_masks", "advantages")}
    batch |= {
        "unconcat_tokens": data["tokens"],
        "log_probs": None,
        "rollout_mask_sums": data["rollout_mask_sums"],
    }
    batch |= {"ref_log_probs": None, "rollout_log_probs": None}
    args = slime_batch.name_args("dgpo", slime_batch.make_samples())
    logits = torch.randn(1, sum(data["total_lengths"]), 48, requires_grad=True)
    loss, *_ = loss_function(args, batch, 1, 16, logits)
    rows = zip(data["advantages"], data["loss_masks"], data["rollout_mask_sums"], strict=True)
    right = sum(-(advantages * mask).sum() / total.clamp(min=1) for advantages, mask, total in rows) / 16
    assert loss.item() == pytest.approx(right.item(), abs=1e-5)
