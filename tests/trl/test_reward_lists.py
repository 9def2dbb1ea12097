"""What a reward function may return for a completion in place of a number, and what is refused."""

import logging

import numpy as np
import pytest
import torch
from turn_rewards import number_turns, outcome, per_turn, rollout, watch

from credit.adapters.trl import reward_lists

ONE = {"max_steps": 1}


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda ids: [0.5] * (len(ids) + 1), r"returned {n} numbers for completion 4, which has {t} tokens"),
        (lambda ids: [], r"returned 0 numbers for completion 4, which has {t} tokens and 3 turns"),
        (
            lambda ids: [1.0, None, 0.0],
            r"returned \[1.0, None, 0.0\] for completion 4; expected a list of finite",
        ),
        (lambda ids: np.full(len(ids), np.inf), r"inf.* for completion 4; expected a list of finite numbers"),
        (
            lambda ids: [[1.0], [1.0, 2.0]],
            r"completion 4; expected a list of finite numbers, 0 where nothing",
        ),
        (lambda ids: ["good"], r"returned \['good'\] for completion 4"),
    ],
    ids=["length", "empty", "none", "infinite", "ragged", "text"],
)
@pytest.mark.parametrize("name", ["mt_grpo", "grpo"])
def test_lists_that_fit_neither_tokens_nor_turns_are_named(make_trainer, name, reward, message):
    seen = []

    def judge(completion_ids, outside, **_):
        assert number_turns(outside[4]) == 3
        seen.append(len(completion_ids[4]))
        return [reward(ids) if row == 4 else 0.5 for row, ids in enumerate(completion_ids)]

    trainer = make_trainer(name, reward=[outcome, judge], extra={"rollout_func": rollout}, **ONE)
    with pytest.raises(ValueError, match="the reward function judge returned") as caught:
        trainer.train()
    caught.match(message.format(t=seen[0], n=seen[0] + 1))


@pytest.mark.parametrize(
    ("values", "own", "expected"),
    [
        ([1, 2, 3, 4, 5], [0, 1, 1, 0, 0], [0, 3, 12, 0, 0]),
        ([1, 2, 3, 4, 5], [1, 0, 0, 1, 1], [6, 0, 0, 4, 5]),
        ([1, 2], [0, 1, 1, 0, 1], [0, 0, 1, 0, 2]),
        ([1], [0, 1, 1, 0, 1], [0, 0, 1, 0, 0]),  # nothing answered the last turn
        ([1], [1, 0, 1, 0], None),  # the last one was answered, too
        ([], [1, 1], [0, 0]),
        ([], [1, 0], None),
        ([3], [1], [3]),
        ([], [], []),
        ([1, 2], [0, 0], [0, 0]),
        ([1], [0, 0], None),
    ],
)
def test_every_value_counts_on_a_token_of_the_policy(values, own, expected):
    placed = reward_lists.place_values(np.array(values, float), np.array(own, bool))
    assert (None if placed is None else placed.tolist()) == expected


def test_the_sum_is_what_an_estimator_of_one_reward_gets_and_is_told_once(train, caplog):
    def listed(completion_ids, **_):
        return [np.asarray(ids) / 16 for ids in completion_ids]

    def summed(completion_ids, **_):
        return [sum(ids) / 16 for ids in completion_ids]

    with caplog.at_level(logging.WARNING, "credit"):
        _, log = train("reinforce_plus_plus", reward=listed, max_steps=2)
        _, same = train("reinforce_plus_plus", reward=summed, max_steps=2)
    assert [entry["loss"] for entry in log] == [entry["loss"] for entry in same]
    assert [entry["rewards/listed/mean"] for entry in log] == [entry["rewards/summed/mean"] for entry in same]
    (line,) = [r.getMessage() for r in caplog.records if "list" in r.getMessage()]
    assert line == (
        "reinforce_plus_plus gets the sum of the list that listed returned for a completion, since it reads "
        "no token_rewards; rewards_from='tokens' or 'both' makes it read them"
    )


def test_without_an_estimator_trl_refuses_a_list_as_ever(make_trainer):
    trainer = make_trainer(reward=per_turn, extra={"rollout_func": rollout}, **ONE)
    functions = trainer.reward_funcs
    with pytest.raises((TypeError, ValueError), match="list|expected sequence|float"):
        trainer.train()
    assert trainer.reward_funcs is functions


def test_what_cannot_be_told_apart_is_refused(make_trainer):
    mixed = {"parts": [[0.5, "grpo"], [0.5, "mt_grpo"]]}
    extra = {"rollout_func": rollout}
    with pytest.raises(
        ValueError, match=r"grpo \(total\), mt_grpo \(outcome\).* by log_extra\('token_rewards'"
    ):
        make_trainer("mix", mixed, reward=per_turn, extra=extra, **ONE).train()

    def twice(completion_ids, outside, log_extra, **_):
        log_extra("token_rewards", [[0.0] * len(ids) for ids in completion_ids])
        return per_turn(completion_ids, outside)

    with pytest.raises(ValueError, match="log_extra and the reward functions both have a 'token_rewards'"):
        make_trainer("mt_grpo", reward=twice, extra=extra, **ONE).train()
    with pytest.raises(ValueError, match="no 'token_rewards'.* lists that a reward function returns"):
        make_trainer("mt_grpo", reward=outcome, extra=extra, **ONE).train()


def test_batches_without_lists_are_taken_beside_those_with_lists(make_trainer, tmp_path):
    """A function may not apply to a prompt, or fail to judge its turns; a resumed run knows of the lists."""
    step = []

    def sometimes(completion_ids, outside, trainer_state, **_):
        step.append(trainer_state.global_step)
        lists = per_turn(completion_ids, outside)
        return {0: [None] * len(lists), 1: lists}.get(step[-1], [sum(values) for values in lists])

    def run(resume=None):
        trainer = make_trainer(
            "mt_grpo",
            reward=[sometimes, outcome],
            extra={"rollout_func": rollout},
            max_steps=3,
            save_strategy="steps",
            save_steps=2,
        )
        outputs = watch(trainer)
        trainer.train(resume_from_checkpoint=resume)
        return [output["advantages"] for output in outputs]

    whole = run()
    assert all(each.abs().max() > 0.5 for each in whole)
    (last,) = run(resume=str(tmp_path / "out/checkpoint-2"))
    assert step == [0, 1, 2, 2]
    torch.testing.assert_close(last, whole[2], rtol=0, atol=0)
