"""Arrays by name from the rows of verl's TransferQueue: the user's own, and what verl has beside rewards."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, reduce
from typing import Any, get_args

import numpy as np
import torch
import transfer_queue as tq
from verl.protocol import KVBatchMeta

import credit
from credit.adapters import extra
from credit.adapters.verl import turns
from credit.adapters.verl.hooks import FRAMEWORK
from credit.adapters.verl.rewards import KEYS, TokenRewards
from credit.fields import EXTRA

Tensor = torch.Tensor
logger = logging.getLogger("credit")
OWN = {"extra.token_ids": "responses", "extra.values": "values"}  # verl's names of what it has itself
DICTS = ("extra_fields", "extra_info")  # what an agent loop adds to a row, and the data set's own


def collect_arrays(estimator: credit.Estimator, batch: KVBatchMeta) -> dict[str, Tensor]:
    """The arrays [N, ...] that the estimator reads and that are no statistics; 0 in rows of padding."""
    found, names = dict[str, Tensor](), estimator.required_fields
    for name in set(OWN) & set(names):
        found[name] = pad_nested(fetch_fields(batch, OWN[name])[OWN[name]])
    given = extra.list_given(FRAMEWORK, estimator)
    if given:
        found |= dict(zip(given, _collect_given(estimator, given, batch), strict=True))
    return found


def collect_turn_scores(batch: KVBatchMeta, name: str) -> Tensor:
    """Rewards of tokens [N, T]: the agent loop's score of each turn on the turn's last token.

    Args:
        name: turn_scores, or tool_rewards, which verl's tool agent has of each call of a tool.

    Raises:
        ValueError: no row has scores, or a row has others than one for each turn, the last one apart.
    """
    data = fetch_fields(batch, "extra_fields", "response_mask")
    pairs = zip(_list_rows(data["extra_fields"]), list_padding(batch), strict=True)
    rows = [None if padded else fields.get(name) for fields, padded in pairs]
    # A batch may do without tools, but not without turns; verl's own loops leave turn_scores empty.
    if not any(rows) and (name == "turn_scores" or all(row is None for row in rows)):
        raise ValueError(
            f"algorithm.credit.token_rewards={name} reads what an agent loop puts into extra_fields["
            f"{name!r}], which no row of this batch has; leave it out for verl's token_level_rewards"
        )
    return turns.place_scores(name, [row or [] for row in rows], pad_nested(data["response_mask"]).bool())


def report_unread_scores(estimator: credit.Estimator, batch: KVBatchMeta) -> None:
    """Logs once that an agent loop scores turns, and the estimator reads other rewards of them."""
    data = fetch_fields(batch, "extra_fields")
    rows = _list_rows(data["extra_fields"]) if "extra_fields" in data else []
    for name in get_args(TokenRewards)[1:]:
        if any(fields.get(name) for fields in rows):
            _report_unread(FRAMEWORK.name_of(estimator), name)


@cache
def _report_unread(estimator: str, name: str) -> None:
    logger.warning(
        "%s reads the rewards of turns in verl's token_level_rewards, and not the %s of the agent loop; set "
        "+algorithm.credit.token_rewards=%s to read those instead",
        *(estimator, name, name),
    )


def collect_rewards(estimator: credit.Estimator, keys: Sequence[str], batch: KVBatchMeta) -> Tensor:
    """The rewards [N, K] of those names, float32, or float64 if any is; 0 in rows of padding."""
    columns = _collect_given(estimator, keys, batch, f"algorithm.{KEYS}=", np.float64)
    for key, column in zip(keys, columns, strict=True):
        if column.ndim > 1:
            raise ValueError(f"the reward {key!r} has several numbers per response; expected one")
    kind = reduce(torch.promote_types, [column.dtype for column in columns], torch.float32)
    return torch.stack([column.to(kind) for column in columns], dim=1)


def list_padding(batch: KVBatchMeta) -> list[bool]:
    """Which rows verl added to fill a mini-batch; they are copies of another row but for their response."""
    return [bool(tag.get("is_padding", False)) for tag in batch.tags]


def fetch_fields(batch: KVBatchMeta, *names: str, rows: Sequence[int] | None = None) -> Any:
    """The fields of those names of these rows of the batch, or of all; one that no row has is left out."""
    keys = batch.keys if rows is None else [batch.keys[row] for row in rows]
    return tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=list(names))


def pad_nested(nested: Tensor) -> Tensor:
    """[N, T] of rows of several lengths, with 0 behind them."""
    return nested.to_padded_tensor(0) if nested.is_nested else nested


def _collect_given(
    estimator: credit.Estimator,
    given: Sequence[str],
    batch: KVBatchMeta,
    prefix: str = "",
    floats: type[np.floating] = np.float32,
) -> list[Tensor]:
    """The arrays [N, ...] of those names, which errors of their rows call by the prefix and the name."""
    real = [row for row, padded in enumerate(list_padding(batch)) if not padded]
    data = fetch_fields(batch, *(name.removeprefix(EXTRA) for name in given), *DICTS, "responses")
    lengths = [len(row) for row in data["responses"].unbind()]
    dicts = {name: [_list_rows(data[name])[row] for row in real] for name in DICTS if name in data}
    dicts["reward_extra_info"] = [row.get("reward_extra_info") or {} for row in dicts.get("extra_fields", ())]
    columns = {name.removeprefix(EXTRA) for name in given} & set(data.keys())
    places = {place: _merge_rows(rows) for place, rows in dicts.items()}
    places["the batch"] = {name: [_list_rows(data[name])[row] for row in real] for name in columns}
    if not all(any(name.removeprefix(EXTRA) in each for each in places.values()) for name in given):
        # Only for the error's list of names, since the other fields are many and large.
        first = tq.kv_batch_get(keys=batch.keys[:1], partition_id=batch.partition_id)
        places["the batch"] |= dict.fromkeys(set(first.keys()) - columns)
    found = []
    for name in given:
        values = extra.find_values(FRAMEWORK, estimator, name, places)
        own = [lengths[row] for row in real]
        array = extra.stack_rows(prefix + name, values, own, max(lengths), floats=floats)
        whole = torch.zeros((len(lengths), *array.shape[1:]), dtype=torch.from_numpy(array).dtype)
        whole[real] = torch.from_numpy(array)
        found.append(whole)
    return found


def _merge_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The rows' dicts as columns; None where a row lacks what another has."""
    rows = list(rows)
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)}


def _list_rows(column: Any) -> list[Any]:
    """The rows of a column, which is a tensor or one of several kinds of lists."""
    if isinstance(column, Tensor):
        return list(column.unbind())
    return column.tolist() if hasattr(column, "tolist") else list(column)
