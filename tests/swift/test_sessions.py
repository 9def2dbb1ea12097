"""A multi-turn server may return several samples of one trajectory; each trajectory counts once in its group.

No server runs here: the trainer's own samples are split as a scheduler's `run` splits them.
"""

import copy
import json

import numpy as np
import pytest
from swift.rlhf_trainers import GRPOTrainer
from swift_oracle import found_advantages, make_rollouts

import credit

CLOSE = 2e-5


@pytest.fixture
def split_trajectories(monkeypatch):
    """Every third trajectory comes as two samples: its first tokens, and all of it."""
    generate = GRPOTrainer._generate_completions

    def split(trainer, samples):
        trainer.dynamic_num_samples = False  # as the rollout of a server begins
        found = []
        for place, sample in enumerate(generate(trainer, samples)):
            if place % 3 == 0:
                start = copy.deepcopy(sample)
                start.response_token_ids = start.response_token_ids[:3]
                found.append(start)
            found.append(sample)
        trainer.dynamic_num_samples = len(found) > len(samples)
        return found

    monkeypatch.setattr(GRPOTrainer, "_generate_completions", split)


def expected_advantages(batch, tau):
    """[N, T]: GRPO's A_i over the trajectories of each prompt, spread by DGPO's weights over each sample."""
    rollouts = make_rollouts(batch)
    rewards = dict(
        zip((each.request_id for each in batch.samples), batch.rewards[:, 0].tolist(), strict=True)
    )
    prompts = {each.request_id: each.prompt_id for each in batch.samples}
    expected = np.zeros(rollouts.mask.shape)
    for row, sample in enumerate(batch.samples):
        group = [rewards[each] for each, prompt in prompts.items() if prompt == sample.prompt_id]
        advantage = (rewards[sample.request_id] - np.mean(group)) / (np.std(group, ddof=1) + 1e-6)
        own = rollouts.mask[row]
        score = (rollouts.deviation[row] * rollouts.normalized_entropy[row])[own] / tau
        weights = np.exp(score - score.max())
        expected[row, own] = advantage * own.sum() * weights / weights.sum()
    return expected


@pytest.mark.parametrize("beta", [0, 0.04])
def test_a_trajectory_of_several_samples_counts_once(train, split_trajectories, beta):
    witness = train(credit.DGPO(tau=0.05), reward_funcs="by_request", beta=beta)
    assert len(witness.batches) == 2
    for batch in witness.batches:
        assert len(batch.samples) == 11
        assert len({sample.request_id for sample in batch.samples}) == 8
        expected = expected_advantages(batch, 0.05)
        assert np.abs(found_advantages(batch, expected.shape[1]) - expected).max() < CLOSE
    assert witness.metric("credit/weight_std")[1] > 0.1


def test_records_hold_whole_groups_of_them(train, split_trajectories):
    witness = train(
        "grpo",
        reward_funcs="by_request",
        beta=0,
        credit_settings={"record_steps": 1, "record_completions": 4},
    )
    records = [json.loads(line) for line in (witness.output / "credit.jsonl").read_text().splitlines()]
    first = [sample.prompt_id for sample in witness.batches[0].samples].count("prompt_0")
    assert first > 4
    assert [record["step"] for record in records].count(1) == first


def test_without_weights_it_is_ms_swifts_own(train, split_trajectories):
    estimator = credit.get("grpo", preset="ms-swift")
    theirs, ours = (train(each, reward_funcs="by_request") for each in (None, estimator))
    for their_batch, our_batch in zip(theirs.batches, ours.batches, strict=True):
        for their_part, our_part in zip(their_batch.grpo, our_batch.grpo, strict=True):
            mask = their_part.completion_mask
            np.testing.assert_allclose(our_part.advantages[mask], their_part.advantages[mask], atol=5e-6)


def test_an_estimator_of_whole_advantages_is_refused_there(train, split_trajectories):
    estimator = credit.get("entropy_shaped")
    with pytest.raises(ValueError, match="entropy_shaped computes its advantages as a whole"):
        train(estimator, reward_funcs="by_request")
