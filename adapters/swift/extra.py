"""Arrays of the user's own, from the data set's columns or from what a multi-turn scheduler returns."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from credit.adapters import extra
from credit.adapters.extra import Kind
from credit.adapters.swift.hooks import FRAMEWORK
from credit.adapters.swift.processes import gather_rows
from credit.fields import EXTRAS
from credit.types import FIELDS

Tensor = torch.Tensor


def gather_given(trainer: Any, batch: Any) -> dict[str, Tensor]:
    """The arrays [N, ...] of all processes' rows that the estimator reads and the user gives.

    A row of one value per token has one for each token that the policy chose, without those of tools.
    """
    names = extra.list_given(FRAMEWORK, trainer.credit.estimator)
    places = {
        "the data set": _read_columns([sample.extra for sample in batch.samples]),
        "rollout_infos": _read_columns([sample.rollout_infos for sample in batch.samples]),
    }
    return {name: _gather(trainer, batch, name, places) for name in names}


def _read_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _gather(trainer: Any, batch: Any, name: str, places: Mapping[str, Mapping[str, Any]]) -> Tensor:
    values = extra.find_values(FRAMEWORK, trainer.credit.estimator, name, places)
    device, mask, agreed = trainer.accelerator.device, batch.mask, list[Kind]()

    def agree(kind: Kind) -> Kind:
        own = torch.tensor([kind], device=device)
        agreed.append(Kind(*(int(each) for each in trainer.accelerator.gather(own).amin(dim=0))))
        return agreed[0]

    rows = torch.from_numpy(
        extra.stack_rows(name, values, mask.sum(dim=1).tolist(), mask.shape[1], agree)
    ).to(device)
    rule = FIELDS.get(name) or EXTRAS.get(name)
    if agreed[0].per_token or (rule is not None and rule.shape == "[N, T]"):
        packed = rows[torch.arange(rows.shape[1], device=device) < mask.sum(dim=1, keepdim=True)]
        rows = torch.zeros_like(rows).masked_scatter(mask, packed)
    return gather_rows(trainer.accelerator, rows)
