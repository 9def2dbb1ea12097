"""Responses that take no part: they leave OpenRLHF's loss, and its own means of what is logged."""

from collections.abc import Sequence
from typing import Any

import torch

Tensor = torch.Tensor


def find_valid(rewards: Tensor, lengths: Tensor) -> Tensor:
    """The rows [N] that take part: their reward is finite, and the policy chose at least one token.

    A response without tokens is one that its prompt or the environment left no room for, so that its reward
    says nothing about the policy. (The core counts the reward of a row with an empty mask, since a
    framework may mask a response that was sampled, as TRL does with truncated ones.)
    """
    return rewards.isfinite() & (lengths > 0)


def leave_loss(experiences: Sequence[Any], valid: Tensor) -> None:
    """Clears the action masks of the rows that are not valid [N].

    OpenRLHF counts tokens and responses of its loss by that mask, so that they leave both.
    """
    if valid.all():
        return
    rows = [len(experience.action_mask) for experience in experiences]
    for experience, own in zip(experiences, valid.split(rows), strict=True):
        experience.action_mask = experience.action_mask * own[:, None].to(experience.action_mask.dtype)


def leave_means(experiences: Sequence[Any], valid: Tensor) -> None:
    """Replaces what is not finite in the info of rows that are not valid by the mean of all other rows.

    OpenRLHF logs the plain mean of each entry, which one NaN would make NaN: of a reward that was not given,
    or of the mean KL over no tokens. So it is the mean over the rows that have a value. Where no row has
    one, it stays NaN.
    """
    if valid.all():
        return
    for name in dict.fromkeys(name for experience in experiences for name in experience.info):
        values = [experience.info.get(name) for experience in experiences]
        if not all(map(_is_logged, values)):
            continue
        every = torch.cat(values)
        known = every.isfinite()
        missing = ~known & ~valid
        if missing.any() and known.any():
            mean = every[known].double().mean().to(every.dtype)
            parts = torch.where(missing, mean, every).split([len(each) for each in values])
            for experience, own in zip(experiences, parts, strict=True):
                experience.info[name] = own


def _is_logged(value: Any) -> bool:
    """Whether it is a float per row, [B]."""
    return isinstance(value, Tensor) and value.ndim == 1 and value.is_floating_point()
