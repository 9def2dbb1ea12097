"""Micro-batches, and whole steps of the optimizer, in which no response takes part.

OpenRLHF divides by their number of action tokens, which is 0: the loss and its gradient would be NaN, or the
run would end with a ZeroDivisionError where it averages what it logs.
"""

from collections.abc import Mapping, MutableMapping
from math import isnan
from typing import Any

import torch

NOTHING = 1e-9  # action tokens: next to none in a mean over micro-batches, yet no division by zero


def bound_counts(replay_buffer: Any, loss_batch_info: MutableMapping[str, Any] | None) -> None:
    """Lets the loss of a step without responses be 0 divided by 1.

    OpenRLHF counts tokens and responses of a step beforehand; with dynamic batches in the replay buffer.
    """
    if loss_batch_info is not None:
        for name in ("batch_num_tokens", "global_batch_size"):
            count = loss_batch_info[name]
            loss_batch_info[name] = torch.where(count == 0, torch.ones_like(count), count)
    for name in ("dynamic_batch_num_tokens", "dynamic_global_batch_size"):
        setattr(replay_buffer, name, [count or 1.0 for count in getattr(replay_buffer, name)])


def complete_status(status: MutableMapping[str, Any]) -> None:
    """The policy's status of a micro-batch, with 0 and next to no weight for its means over no tokens."""
    if status["num_action_tokens"]:
        return
    status["num_action_tokens"] = NOTHING
    metrics, weights = status["metrics"], status["weights"]
    for name in [name for name, weight in weights.items() if weight == "token"]:
        metrics[name] = torch.nan_to_num(torch.as_tensor(metrics[name]), nan=0.0)


def complete_means(status: MutableMapping[str, float], before: Mapping[str, float]) -> None:
    """The critic's status of a micro-batch without tokens, whose means are those of the one before, or 0."""
    for name, value in status.items():
        if isnan(value):
            status[name] = before.get(name, 0.0)
