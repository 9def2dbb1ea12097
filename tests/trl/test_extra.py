"""Arrays of the user's own in TRL's real trainer: an estimator sees those of its own rows."""

from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from datasets import Dataset

import credit
from credit import lens

# Every prompt says how hard it is, in a column beside it.
PROMPTS = Dataset.from_dict(
    {
        "prompt": [f"{number:0{2 if number % 25 else 12}}>" for number in range(100)],
        "difficulty": [number / 100 for number in range(100)],
        "subject": ["sums"] * 100,
    }
)


class Reader(credit.Redistributing):
    """Reads an array per response and one per token, and keeps what it saw."""

    name: Literal["reader"] = "reader"
    seen: ClassVar[list] = []
    scores: Literal["own_scores", "token_ids"] = "own_scores"

    @property
    def needs(self):
        return ("extra.difficulty", f"extra.{self.scores}", "extra.token_ids", "normalized_entropy")

    def score(self, rollouts):
        self.seen.append(rollouts)
        return rollouts.extra[self.scores] * rollouts.extra["difficulty"][:, None] / 40


@pytest.fixture(autouse=True)
def forget():
    Reader.seen.clear()


def score_tokens(completion_ids):
    """What a process reward model might say of a completion: a number for each token and its place."""
    return [[token + place / 16 for place, token in enumerate(ids)] for ids in completion_ids]


def scored(completions, completion_ids, log_extra, **_):
    """A reward function that also scores every token; it varies within the groups."""
    log_extra("own_scores", score_tokens(completion_ids))
    return [sum(c in "01234" for c in text) / max(len(text), 1) for text in completions]


def unfit(completions, completion_ids, log_extra, **_):
    """Scores of the token that ends a completion too often."""
    log_extra("own_scores", [[*row, 0.0] for row in score_tokens(completion_ids)])
    return [1.0] * len(completions)


def half(prompts, completions, **named):
    """The same, but the rewards of even prompts are equal."""
    rewards = scored(completions, **named)
    return [r if int(p[:-1]) % 2 else 0.5 for p, r in zip(prompts, rewards, strict=True)]


def check(given, texts):
    """The arrays belong to their rows: a token's score is made of its id, the difficulty of the prompt."""
    mask = given.mask.bool()
    ids, places = given.extra["token_ids"], torch.arange(mask.shape[1])
    assert len({int(row.sum()) for row in mask}) > 1  # ragged
    expected = torch.where(mask, ids + places / 16, 0.0)
    torch.testing.assert_close(given.extra["own_scores"], expected, rtol=0, atol=1e-5)
    expected = torch.tensor([int(text[:-1]) / 100 for text in texts])
    torch.testing.assert_close(given.extra["difficulty"], expected)
    assert len(expected.unique()) > 1


@pytest.mark.releases
def test_an_estimator_reads_columns_of_the_data_set_and_of_the_reward_functions(train):
    trainer, log = train("reader", reward=scored, dataset=PROMPTS, record_steps=1)
    assert len(log) == 3
    check(Reader.seen[-1], trainer._logs["prompt"])
    assert log[-1]["credit/weight_std"] > 0.01
    assert len(list(lens.read(f"{trainer.args.output_dir}/credit.jsonl"))) == 24
    batch = trainer._buffered_inputs[0]  # shuffled by TRL: the scores went along
    mask = batch["completion_mask"].bool()
    expected = batch["completion_ids"] + torch.arange(mask.shape[1]) / 16
    torch.testing.assert_close(batch["credit_extra.own_scores"][mask], expected[mask], rtol=0, atol=1e-5)


def test_they_follow_resampling_and_the_steps_after_the_first(train):
    settings = {"per_device_train_batch_size": 32, "max_steps": 2, "num_iterations": 2}
    trainer, log = train(
        "reader",
        reward=half,
        dataset=PROMPTS,
        dynamic_sampling="resample",
        reweight_with_current_policy=True,
        **settings,
    )
    assert log[0]["credit/sampling_rounds"] > 1
    whole, again = Reader.seen[0], Reader.seen[-1]
    assert (len(whole.rewards), len(again.rewards)) == (32, 32)
    check(whole, trainer._logs["prompt"])
    mask = again.mask.bool()
    expected = again.extra["token_ids"] + torch.arange(mask.shape[1]) / 16
    torch.testing.assert_close(again.extra["own_scores"][mask], expected[mask], rtol=0, atol=1e-5)


def rollout(prompts, trainer):
    generator = torch.Generator().manual_seed(trainer.state.global_step)
    lengths = torch.randint(2, 9, (len(prompts),), generator=generator).tolist()
    ids = [torch.randint(3, 13, (length,), generator=generator).tolist() for length in lengths]
    return {
        "prompt_ids": trainer._tokenizer(prompts)["input_ids"],
        "completion_ids": ids,
        "logprobs": None,
        "own_scores": [torch.tensor(row) for row in score_tokens(ids)],
        "token_rewards": score_tokens(ids),
        "features": np.arange(2 * len(prompts)).reshape(-1, 2),
    }


def test_a_rollout_function_returns_them_and_rewards_of_tokens(train):
    class Features(Reader):
        name: Literal["features"] = "features"

        @property
        def needs(self):
            return (*super().needs, "extra.features", "token_rewards")

    extra = {"rollout_func": rollout}
    trainer, _ = train("features", dataset=PROMPTS, extra=extra, max_steps=1)
    (given,) = Reader.seen
    check(given, trainer._logs["prompt"])
    assert given.extra["features"].tolist() == [[2 * row, 2 * row + 1] for row in range(8)]
    torch.testing.assert_close(given.token_rewards, given.extra["own_scores"])
    _, log = train("mt_grpo", dataset=PROMPTS, extra=extra, max_steps=1)
    assert log[0]["credit/unshared_turn_mean"] == 0


@pytest.mark.parametrize(
    ("dataset", "reward", "message"),
    [
        (
            PROMPTS.remove_columns("difficulty"),
            scored,
            "reader needs extra.difficulty, but this batch has no 'difficulty'; it has own_scores, prompt, "
            "subject. In TRL it comes from what a rollout_func returns .* or a column of the data set",
        ),
        (
            PROMPTS.add_column("own_scores", [0.5] * 100),
            scored,
            "extra.own_scores, and log_extra and the data set both have a 'own_scores'; give one",
        ),
        (
            PROMPTS,
            unfit,
            "extra.own_scores of row . has .* values, and its response .* tokens; expected a number in every",
        ),
        (
            PROMPTS.remove_columns("difficulty").rename_column("subject", "difficulty"),
            scored,
            "extra.difficulty of row 0 is 'sums'; expected a number, or numbers in one list or array",
        ),
    ],
)
def test_what_is_missing_or_unfit_is_named_at_the_first_batch(make_trainer, dataset, reward, message):
    with pytest.raises(ValueError, match=message):
        make_trainer("reader", reward=reward, dataset=dataset).train()


def test_names_that_no_batch_can_have_are_refused_before_loading(make_trainer):
    class Wrong(credit.GRPO):
        name: Literal["wrong_names"] = "wrong_names"

        @property
        def needs(self):
            return ("scores",)

    with pytest.raises(
        ValueError, match="which TRL does not provide; an array of .* is 'extra.scores' in needs"
    ):
        make_trainer("wrong_names", model="/nowhere/no-model")
