"""Multi-turn trajectories of ms-swift's own scheduler loop, and arrays of the user's own."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from swift_oracle import found_advantages, make_rollouts

import credit
from credit import lens

CLOSE = 2e-5
TURNS = {
    "multi_turn_scheduler": "asker",
    "max_turns": 3,
    "external_plugins": [
        str(Path(__file__).parent / name) for name in ("swift_rewards.py", "swift_scheduler.py")
    ],
    "max_completion_length": 6,
    "beta": 0.04,
}


class ByToken(credit.Estimator):
    """The user's own: its advantages tell which token, score, trajectory and row of the data they come from."""

    name: Literal["by_token_of_swift"] = "by_token_of_swift"

    @property
    def needs(self):
        return ("extra.scores", "extra.trajectory", "extra.place", "extra.token_ids")

    def assign(self, rollouts):
        own = 10 * rollouts.extra["trajectory"] + rollouts.extra["place"]
        total = 1e4 * rollouts.extra["token_ids"] + 1e2 * rollouts.extra["scores"] + own[:, None]
        return total * rollouts.mask, rollouts.mask * 1.0


def chosen_tokens(batch):
    for sample in batch.samples:
        labels = np.array(sample.encoded["labels"])
        yield labels[labels != -100]


@pytest.mark.parametrize("within", ["response", "turn"])
def test_the_environments_tokens_get_no_credit_and_turns_their_own(train, within):
    estimator = credit.DGPO(tau=0.05, within=within)
    witness = train(estimator, **TURNS)
    for batch in witness.batches:
        rollouts = make_rollouts(batch)
        assert {2, 3} == {int(turns.max()) + 1 for turns in rollouts.turns}
        assert not rollouts.mask.all(axis=1).any()
        expected = estimator(rollouts).advantages
        assert np.abs(found_advantages(batch, expected.shape[1]) - expected).max() < CLOSE
        for each, mask in zip(batch.grpo, batch.masks, strict=True):
            assert not each.advantages[~mask].any()
    assert witness.metric("credit/weight_std")[1] > 0.1


def test_records_of_turns_have_the_prompt_before_the_first(train):
    estimator = credit.DGPO(tau=0.05)
    witness = train(estimator, credit_settings={"record_steps": 1}, **TURNS)
    records = list(lens.read(witness.output / "credit.jsonl"))
    rows = [sample for batch in witness.batches for sample in batch.samples]
    for record, sample in zip(records, rows, strict=True):
        roles = [message["role"] for message in json.loads(record.prompt)]
        assert roles == ["system", "user"]
        assert len(sample.messages) > 3


def test_without_weights_multi_turn_training_is_ms_swifts_own(train):
    estimator = credit.get("grpo", preset="ms-swift")
    theirs, ours = train(**TURNS), train(estimator, **TURNS)
    for their_batch, our_batch in zip(theirs.batches, ours.batches, strict=True):
        for their_part, our_part in zip(their_batch.grpo, our_batch.grpo, strict=True):
            mask = their_part.completion_mask
            np.testing.assert_allclose(our_part.advantages[mask], their_part.advantages[mask], atol=5e-6)


def test_arrays_by_name_reach_their_own_tokens(train):
    witness = train(ByToken(), **TURNS, max_steps=1)
    (batch,) = witness.batches
    found = found_advantages(batch, make_rollouts(batch).mask.shape[1])
    for sample, row, ids in zip(batch.samples, found, chosen_tokens(batch), strict=True):
        of_row = 10 * sample.rollout_infos["trajectory"] + sample.extra["place"]
        assert sample.rollout_infos["scores"] == ids.tolist()
        assert row[row != 0].tolist() == [1e4 * i + 1e2 * i + of_row for i in ids]
    assert len({sample.extra["place"] for sample in batch.samples}) == 2


def test_turn_rewards_of_a_scheduler_train_mt_grpo(train):
    """`token_rewards` by name; here a turn's tokens earn their ids, and the outcome is the reward function's."""
    names = Path(__file__).parent
    plugins = [*TURNS["external_plugins"], str(names / "swift_turn_rewards.py")]
    estimator = credit.get("mt_grpo")
    witness = train(estimator, **TURNS | {"external_plugins": plugins, "multi_turn_scheduler": "earner"})
    for batch in witness.batches:
        whole = make_rollouts(batch)
        earned = np.zeros(whole.mask.shape)
        for row, mask, ids in zip(earned, whole.mask, chosen_tokens(batch), strict=True):
            row[mask] = ids / 10
        expected = estimator(whole._replace(token_rewards=earned)).advantages
        assert np.abs(found_advantages(batch, expected.shape[1]) - expected).max() < CLOSE
        plain = estimator(whole._replace(token_rewards=0 * earned)).advantages
        assert np.abs(expected - plain).max() > 0.1


def test_an_array_that_no_batch_has_is_an_error_with_those_that_it_has(train):
    with pytest.raises(
        ValueError, match=r"needs extra.scores, but this batch has no 'scores'; it has dataset, place"
    ):
        train(ByToken(), beta=0)
