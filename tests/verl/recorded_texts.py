"""Prompts and responses whose records are read back: of two groups, the second with an invalid row."""

import math

import torch
from advantage_calls import MASKS
from tiny_model import character_tokenizer

GRPO = "algorithm.adv_estimator=credit_grpo"
REWARDS = [1.0, 0.0, math.nan, 2.0]
PROMPTS = ["1+2>", "1+2>", "34+5>", "34+5>"]
TOKENIZER = character_tokenizer()
EVERY_SECOND = "+algorithm.credit.record_steps=2"


def pad(rows):
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True)


def number(text):
    return torch.tensor(TOKENIZER(text)["input_ids"])


def answer(row):
    return str(row) * len(MASKS[row])


def last(rewards):
    return [[0.0] * (len(row) - 1) + [reward] for row, reward in zip(MASKS, rewards, strict=True)]


def spread(first):
    """A number below 0 for each token of the masks' rows."""
    return [-torch.linspace(first, first + 1, len(row)) for row in MASKS]
