"""Arrays of the user's own in TRL's batch, where they are shuffled, split, resampled and saved as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from credit.adapters import extra, readings
from credit.adapters.trl import token_rewards
from credit.adapters.trl.hooks import FRAMEWORK

Tensor = torch.Tensor
KEY = "credit_"  # of the arrays in TRL's batch, before their names


@dataclass
class Generated:
    """What one generation of this process said about its rows.

    Attributes:
        own: [T_i], bool, of each completion: the tokens that the policy chose, not those of tools.
        returned: what a `rollout_func` returned beside completions, by name.
        logged: what reward functions gave to `log_extra`, by name, in the order of the rows.
        listed: the rewards of tokens [T_i] of the completions for which a reward function returned a list, by
            the function's column and the completion's row.
    """

    own: Sequence[np.ndarray]
    returned: Mapping[str, Any]
    logged: dict[str, list[Any]] = field(default_factory=dict)
    listed: dict[int, dict[int, np.ndarray]] = field(default_factory=dict)


def read_generated(
    completion_ids: Sequence[Any], tool_mask: Sequence[Any] | None, returned: Mapping[str, Any]
) -> Generated:
    """What TRL's `_generate` returned; its `tool_mask` is None where every token is the policy's."""
    ones = [np.ones(len(ids), np.bool_) for ids in completion_ids]
    own = ones if tool_mask is None else [np.asarray(mask, np.bool_) for mask in tool_mask]
    return Generated(own, dict(returned))


def read_columns(inputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The data set's columns, from before TRL writes into the rows what a `rollout_func` returned."""
    return {name: [row.get(name) for row in inputs] for name in inputs[0]}


def add_arrays(trainer: Any, columns: Mapping[str, Any], output: dict[str, Tensor]) -> None:
    """Puts the arrays that the estimator reads and the user gives into the batch just generated."""
    estimator, generated = trainer.credit.estimator, trainer.credit.generated
    places: dict[str, Mapping[str, Any]] = {
        "rollout_func": generated.returned,
        "log_extra": generated.logged,
        "the data set": columns,
    }
    if readings.NAME in estimator.required_fields:
        elsewhere = any(readings.NAME in each for each in places.values())
        places["the reward functions"] = token_rewards.collect_lists(trainer, output, elsewhere)
    ids = output["completion_ids"]
    lengths = [len(own) for own in generated.own]
    for name in extra.list_given(FRAMEWORK, estimator):
        values = extra.find_values(FRAMEWORK, estimator, name, places)
        rows = values if hasattr(values, "__len__") else [values] * len(ids)

        def agree(kind: extra.Kind) -> list[int]:
            own = torch.tensor([kind], device=ids.device)
            return [int(each) for each in trainer.accelerator.gather(own).amin(dim=0)]

        whole = extra.stack_rows(name, rows, lengths, ids.shape[1], agree)
        output[KEY + name] = torch.from_numpy(whole).to(ids.device)


def token_arrays(names: Sequence[str], output: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of those names that this process' batch holds."""
    found = {name: output[KEY + name] for name in names if KEY + name in output}
    if "extra.token_ids" in names:
        found["extra.token_ids"] = output["completion_ids"]
    return found
