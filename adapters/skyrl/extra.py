"""Arrays of the user's own: lists with a row per response, in what a generator returns to SkyRL."""

from collections.abc import Mapping
from typing import Any

import torch

import credit
from credit.adapters import extra
from credit.adapters.extra import Kind
from credit.adapters.skyrl.hooks import FRAMEWORK
from credit.fields import EXTRAS
from credit.types import FIELDS

Tensor = torch.Tensor
KEY = "credit_given"  # of the rows in the metadata of SkyRL's batch


def find_rows(estimator: credit.Estimator, output: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The rows that the estimator reads and the generator's output has, by name.

    Raises:
        ValueError: the output has no such list; it names those that there are.
    """
    count = len(output["response_ids"])
    lists = {name: rows for name, rows in output.items() if isinstance(rows, list) and len(rows) == count}
    places = {"what the generator returned": lists}
    return {
        name: extra.find_values(FRAMEWORK, estimator, name, places)
        for name in extra.list_given(FRAMEWORK, estimator)
    }


def make_arrays(given: Mapping[str, list[Any]], response_mask: Tensor) -> dict[str, Tensor]:
    """The arrays [N, ...] of those rows; a row of one value per token has one for each of its response.

    SkyRL's responses end with a common column, as its response_mask [N, T] does.
    """
    return {name: _make_array(name, rows, response_mask.bool()) for name, rows in given.items()}


def _make_array(name: str, rows: list[Any], mask: Tensor) -> Tensor:
    lengths, kinds = mask.sum(dim=1), list[Kind]()

    def note(kind: Kind) -> Kind:
        kinds.append(kind)
        return kind

    found = torch.from_numpy(extra.stack_rows(name, rows, lengths.tolist(), mask.shape[1], note))
    rule = FIELDS.get(name) or EXTRAS.get(name)
    if not (kinds[0].per_token or (rule is not None and rule.shape == "[N, T]")):
        return found
    packed = found[torch.arange(mask.shape[1]) < lengths[:, None]]
    return torch.zeros_like(found).masked_scatter(mask, packed)
