"""Arrays of the user's own in TRL's batch, where they are shuffled, split, resampled and saved as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from credit.adapters import extra
from credit.adapters.trl.hooks import FRAMEWORK

Tensor = torch.Tensor
KEY = "credit_"  # of the arrays in TRL's batch, before their names


@dataclass
class Generated:
    """What one generation of this process said about its rows.

    Attributes:
        lengths: the number of tokens of each completion.
        returned: what a `rollout_func` returned beside completions, by name.
        logged: what reward functions gave to `log_extra`, by name, in the order of the rows.
    """

    lengths: Sequence[int]
    returned: Mapping[str, Any]
    logged: dict[str, list[Any]] = field(default_factory=dict)


def read_columns(inputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The data set's columns, from before TRL writes into the rows what a `rollout_func` returned."""
    return {name: [row.get(name) for row in inputs] for name in inputs[0]}


def add_arrays(trainer: Any, columns: Mapping[str, Any], output: dict[str, Tensor]) -> None:
    """Puts the arrays that the estimator reads and the user gives into the batch just generated."""
    estimator, generated = trainer.credit.estimator, trainer.credit.generated
    places = {
        "rollout_func": generated.returned,
        "log_extra": generated.logged,
        "the data set": columns,
    }
    ids = output["completion_ids"]
    for name in extra.list_given(FRAMEWORK, estimator):
        values = extra.find_values(FRAMEWORK, estimator, name, places)
        rows = values if hasattr(values, "__len__") else [values] * len(ids)

        def agree(kind: extra.Kind) -> list[int]:
            own = torch.tensor([kind], device=ids.device)
            return [int(each) for each in trainer.accelerator.gather(own).amin(dim=0)]

        whole = extra.stack_rows(name, rows, generated.lengths, ids.shape[1], agree)
        output[KEY + name] = torch.from_numpy(whole).to(ids.device)


def token_arrays(names: Sequence[str], output: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of those names that this process' batch holds."""
    found = {name: output[KEY + name] for name in names if KEY + name in output}
    if "extra.token_ids" in names:
        found["extra.token_ids"] = output["completion_ids"]
    return found
