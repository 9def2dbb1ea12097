"""Completions of several turns, reward functions that return lists for them, and the advantages by hand."""

from itertools import groupby

import numpy as np
import torch

import credit


def rollout(prompts, trainer):
    """Completions of one to three turns; some begin with words of the environment, and some end with them."""
    rng, masks = np.random.default_rng(7 + trainer.state.global_step), []
    for row in range(len(prompts)):
        mask = [0] * (row % 3)
        for _ in range(1 + (row + row // 4) % 3):
            mask += [1] * int(rng.integers(1, 4)) + [0] * int(rng.integers(1, 3))
        masks.append(mask if row % 2 else mask[: -mask[::-1].index(1)])
    ids = [rng.integers(3, 13, len(mask)).tolist() for mask in masks]
    given = trainer._tokenizer(prompts)["input_ids"]
    return {
        "prompt_ids": given,
        "completion_ids": ids,
        "logprobs": None,
        "env_mask": masks,
        "outside": masks,
    }


def number_turns(mask):
    return sum(own for own, _ in groupby(mask))


def per_turn(completion_ids, outside, **_):
    return [
        [ids[0] / 8 + k * len(mask) / 16 for k in range(number_turns(mask))]
        for ids, mask in zip(completion_ids, outside, strict=True)
    ]


async def per_token(completion_ids, **_):
    """Asynchronous, and of words of the environment, too."""
    return [torch.tensor(ids, dtype=torch.bfloat16) / 16 for ids in completion_ids]


def outcome(completion_ids, **_):
    return [len(ids) / 4 for ids in completion_ids]


def place_turns(values, mask):
    """By hand: each value on the last token of its turn."""
    placed, at, turn = [0.0] * len(mask), -1, 0
    for own, run in groupby(mask):
        at += len(list(run))
        if own and turn < len(values):
            placed[at] = values[turn]
            turn += 1
    return placed


def place_tokens(values, mask):
    """By hand: the value of another token on the policy's last one before it, or on its first."""
    placed, last = [0.0] * len(mask), mask.index(1)
    for place, (own, value) in enumerate(zip(mask, values, strict=True)):
        last = place if own else last
        placed[last] += value
    return placed


def watch(trainer):
    """What the trainer's batches are before TRL shuffles them."""
    outputs, generate = [], trainer._generate_and_score_completions

    def watched(inputs):
        outputs.append(generate(inputs))
        return outputs[-1]

    trainer._generate_and_score_completions = watched
    return outputs


def pad(rows, mask):
    whole = torch.zeros(mask.shape, dtype=torch.float64)
    for row, values in enumerate(rows):
        whole[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
    return whole


def by_hand(name, kwargs, mask, rewards, token_rewards, valid=None):
    """The estimator's advantages in float64; the rewards [N] and those of tokens, one list for each row."""
    rewards = torch.as_tensor(rewards, dtype=torch.float64)
    given = credit.Rollouts(
        rewards=rewards,
        groups=torch.arange(len(rewards)) // 4,
        mask=mask,
        token_rewards=pad(token_rewards, mask),
        turns=credit.tokens.turns(mask),
        valid=valid,
    )
    return credit.parse({"name": name, **kwargs})(given).advantages
