"""Completions with the credit of their tokens, written while training for the views of credit.lens."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from credit import lens
from credit.adapters.records import select_groups
from credit.adapters.trackers import KEY, Log, log_records, log_to_tensorboard
from credit.adapters.verl.extra import fetch_fields
from credit.adapters.verl.rollouts import Outcome
from credit.adapters.verl.settings import Choice
from credit.fields import replace_arrays
from credit.types import TokenStatistics

Tensor = torch.Tensor
Ids = tuple[list[list[int]], list[list[int]]]  # of prompts and of responses
KNOWN = (*TokenStatistics._fields, "progress")
"""What is recorded of a batch if verl or a pass has it, whether the estimator reads it or not."""

PAGES = ("wandb", "trackio")  # the loggers that show pages, each of which is one run of its process


def find_step(trainer: Any) -> int:
    """The step at which verl logs the metrics of the batch that it trains on."""
    # fully_async_policy logs the batches of a version together, once it has counted that version.
    version = getattr(trainer, "current_param_version", None)
    return int(trainer.global_steps if version is None else version + 1)


def write_records(
    trainer: Any, choice: Choice, outcome: Outcome, find_ids: Callable[[list[int]], Ids]
) -> None:
    """Appends the batch's first groups to the file, and shows them in those of verl's loggers that can.

    Args:
        find_ids: the ids of prompts and responses in these rows of verl's batch, without padding.
    """
    rows, given, result = select_groups(outcome.rollouts, outcome.result, choice.record_completions)
    rows_of_batch = outcome.rows[rows]
    known = {name: array for name, array in outcome.known.items() if name in KNOWN}
    known = {name: array[rows_of_batch] if array.ndim else array for name, array in known.items()}
    given = replace_arrays(given, known | {"turns": outcome.turns[rows]})
    prompts, responses = find_ids(rows_of_batch.tolist())
    lines = lens.format_records(
        tokens=lens.text_pieces(trainer.tokenizer, responses, prompts),
        rollouts=given,
        result=result,
        estimator=choice.estimator,
        prompts=[trainer.tokenizer.decode(ids, skip_special_tokens=False) for ids in prompts],
        step=find_step(trainer),
    )
    folder = Path(trainer.config.trainer.default_local_dir)
    lens.append_records(choice.record_path or folder / "credit.jsonl", lines)
    log_records(lines, _list_logs(trainer))


def _list_logs(trainer: Any) -> dict[str, Log]:
    """The functions by which verl's loggers log records, at the step of the batch's metrics."""
    loggers, step = _find_loggers(trainer), find_step(trainer)

    def log_page(name: str, page: Any) -> None:
        loggers[name].log({KEY: page}, step=step)

    logs: dict[str, Log] = {name: partial(log_page, name) for name in PAGES if name in loggers}
    if "tensorboard" in loggers:
        logs["tensorboard"] = partial(log_to_tensorboard, loggers["tensorboard"].writer, step)
    return logs


def _find_loggers(trainer: Any) -> dict[str, Any]:
    """What verl logs to, by the names in trainer.logger; of RayPPOTrainer only what its process has one of.

    RayPPOTrainer keeps its loggers in a variable, and a subclass may call anything `logger`. A second writer
    into TensorBoard's folder is no way out: TensorBoard, once it has read the newer file, reads no more of
    the older, into which the metrics go.
    """
    found = getattr(getattr(trainer, "logger", None), "logger", None)
    if isinstance(found, Mapping):
        return dict(found)
    given = trainer.config.trainer.logger
    names = [given] if isinstance(given, str) else given
    return {name: import_module(name) for name in PAGES if name in names}


def fetch_ids(batch: Any, rows: list[int]) -> Ids:
    """The ids of these rows of a batch of verl's queue."""
    data = fetch_fields(batch, "prompts", "responses", rows=rows)
    prompts, responses = ([ids.tolist() for ids in data[name].unbind()] for name in ("prompts", "responses"))
    return prompts, responses


def select_ids(batch: Any, rows: list[int]) -> Ids:
    """The same of a batch of the trainers before V1, whose rows are padded on both sides."""
    arrays, width = batch.batch[rows], batch.batch["prompts"].shape[1]
    given = arrays["attention_mask"].bool()
    return (
        [ids[there].tolist() for ids, there in zip(arrays["prompts"], given[:, :width], strict=True)],
        [ids[there].tolist() for ids, there in zip(arrays["responses"], given[:, width:], strict=True)],
    )
