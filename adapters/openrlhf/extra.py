"""Arrays of the user's own in OpenRLHF: from `extra_logs` of a response to the rows of a batch."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch

import credit
from credit.adapters import extra
from credit.adapters.openrlhf import turns
from credit.adapters.openrlhf.hooks import FRAMEWORK
from credit.adapters.readings import NAME

Tensor = torch.Tensor
KEY = "credit_"  # in an experience's info, before the arrays' names, until the advantages are computed


def take_rows(
    estimator: credit.Estimator, response: Mapping[str, Any], longest: int, every: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a response of OpenRLHF's sampler gives for each array, and the response without lists.

    OpenRLHF logs each of `extra_logs` as one number per response: of a tensor it keeps the first, and a
    list, also one that this estimator does not read, ends the run.

    Args:
        longest: the tokens that OpenRLHF keeps of a response, with its prompt.
        every: whether the turns are given also where the estimator does not read them.
    """
    logs = response.get("extra_logs") or {}
    length = min(longest, len(response["observation_tokens"]))
    found = turns.take_rows(estimator, response, length, every)
    names = [name for name in extra.list_given(FRAMEWORK, estimator) if name not in found]
    found |= {name: extra.find_values(FRAMEWORK, estimator, name, {"extra_logs": logs}) for name in names}
    plain = {name: value for name, value in logs.items() if _is_number(value) or isinstance(value, str)}
    return found, {**response, "extra_logs": plain}


def keep_rows(experience: Any, rows: Mapping[str, Any], actions: int) -> None:
    """Puts a response's rows into its experience as lists, which OpenRLHF merges with those of others.

    A list with a value for each of the response's `actions` loses those of actions that OpenRLHF cut off.
    """
    kept = int(experience.action_mask.sum())
    for name, row in rows.items():
        if _is_number(row):
            own = row.item() if isinstance(row, Tensor) else row
        else:
            own = row[:kept] if len(row) == actions else row
        experience.info[KEY + name] = [own]


def take_arrays(
    estimator: credit.Estimator, experiences: Sequence[Any], lengths: Tensor, width: int
) -> dict[str, Tensor]:
    """The arrays [N, ...] of all experiences, which lose them; aligned to the left as `Batch` is."""
    known = (*extra.list_given(FRAMEWORK, estimator), turns.TURNS, turns.BEFORE, turns.OUTCOME)
    names = [name for name in known if KEY + name in experiences[0].info]
    rows = {name: list(chain.from_iterable(e.info.pop(KEY + name) for e in experiences)) for name in names}
    found: dict[str, Tensor] = {}
    if turns.BEFORE in rows:
        rewards = torch.cat([experience.rewards for experience in experiences])
        rows[NAME], found = turns.settle_rewards(estimator, rows, rewards)
    for name in names:
        if name not in (turns.BEFORE, turns.OUTCOME):
            found[name] = torch.from_numpy(extra.stack_rows(name, rows[name], lengths.tolist(), width))
    return found


def _is_number(row: Any) -> bool:
    """Whether it is one number, or a tensor of one, as reward functions of OpenRLHF return it."""
    return row.numel() == 1 if isinstance(row, Tensor) else not hasattr(row, "__len__")
