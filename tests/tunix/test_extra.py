"""Arrays of the user's own in Tunix's real learner: an estimator sees those of its own rows."""

from typing import ClassVar, Literal

import numpy as np
import pytest

import credit
from credit.adapters.tunix import CreditGRPOConfig, CreditGRPOLearner, log_extra

GROUP = 4
PROMPTS = ("12>", "3>", "407>", "95>")


class Reader(credit.Redistributing):
    """Reads an array of the data, two of a reward function and the ids, and keeps what it saw."""

    name: Literal["reader"] = "reader"
    seen: ClassVar[list] = []

    @property
    def needs(self):
        return ("extra.difficulty", "extra.own_scores", "extra.length", "extra.token_ids", "token_rewards")

    def score(self, rollouts):
        self.seen.append(rollouts)
        return rollouts.extra["own_scores"] * rollouts.extra["difficulty"][:, None] / 100


@pytest.fixture
def learn(make_cluster):
    """Trains on prompts whose number is a column beside them; the reward function sees the tokens too."""

    def run(logged=("own_scores", "length", "token_rewards"), column="difficulty"):
        Reader.seen.clear()
        cluster, sampled = make_cluster(steps=2), []
        generate = cluster.generate
        cluster.generate = lambda *a, **named: sampled.append(generate(*a, **named)) or sampled[-1]

        def low_digits(completions, **_):
            ids = [np.asarray(row) for row in sampled[-1].tokens]
            rows = [row[row != cluster.rollout.pad_id()] for row in ids]
            scores = [row + np.arange(len(row)) / 16 for row in rows]
            values = {"own_scores": scores, "length": [len(row) for row in rows], "token_rewards": scores}
            for name in logged:
                log_extra(name, values[name])
            return [sum(c in "01234" for c in text) / max(len(text), 1) for text in completions]

        learner = CreditGRPOLearner(
            cluster, CreditGRPOConfig(estimator="reader", num_generations=GROUP, beta=0.0), low_digits
        )
        pairs = [PROMPTS[:2], PROMPTS[2:]]
        learner.train(
            {"prompts": np.array(pair), column: np.array([int(text[:-1]) for text in pair])} for pair in pairs
        )
        return Reader.seen

    return run


def test_an_estimator_reads_columns_of_the_data_and_of_the_reward_functions(learn):
    seen = learn()
    assert [given.extra["difficulty"].tolist() for given in seen] == [
        [12] * GROUP + [3] * GROUP,
        [407] * GROUP + [95] * GROUP,
    ]
    for given in seen:
        mask, ids = np.asarray(given.mask), given.extra["token_ids"]
        assert len(set(mask.sum(axis=1))) > 1
        assert (mask[:, :-1] < mask[:, 1:]).any()  # padding was sampled, and is no token
        expected = np.where(mask, ids + (mask.cumsum(axis=1) - 1) / 16, 0.0)
        np.testing.assert_allclose(given.extra["own_scores"], expected, atol=1e-6)
        np.testing.assert_array_equal(given.token_rewards, given.extra["own_scores"])
        np.testing.assert_array_equal(given.extra["length"], mask.sum(axis=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"logged": ("own_scores", "token_rewards")},
            "reader needs extra.length, but this batch has no 'length'; it has difficulty, own_scores, .* In "
            "Tunix it comes from credit.adapters.tunix.log_extra, .* or a column of the data",
        ),
        ({"column": "own_scores"}, "needs extra.difficulty, but this batch has no 'difficulty'"),
    ],
)
def test_what_is_missing_is_named_at_the_first_batch(learn, settings, message):
    with pytest.raises(ValueError, match=message):
        learn(**settings)


def test_outside_a_reward_function_nothing_is_logged():
    with pytest.raises(
        ValueError, match=r"log_extra\('scores', ...\) was called outside a reward function of a learner"
    ):
        log_extra("scores", [1.0])
