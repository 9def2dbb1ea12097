"""Rewards in the form of OpenRLHF's own examples, tensors of one: the share of low digits in a response."""

import torch


def reward_func(queries, prompts, labels, **_):
    pairs = zip(queries, prompts, strict=True)
    responses = [query[len(prompt) :].removesuffix("<eos>") for query, prompt in pairs]
    shares = [sum(c in "01234" for c in text) / max(len(text), 1) for text in responses]
    reward = torch.tensor(shares)
    return {"rewards": reward, "scores": reward, "extra_logs": {"low_share": reward.mean()}}
