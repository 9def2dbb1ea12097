"""The trackers that a run of TRL reports to, and how each logs the completions of a step."""

from functools import partial
from typing import Any

from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from credit.adapters.trackers import KEY, STEP, Log, log_to_tensorboard, log_to_wandb


def find_logs(trainer: Any, step: int) -> dict[str, Log]:
    """The function by which each tracker logs completions at that step, for those that credit has a form for.

    They are found by transformers' callbacks, which `report_to` and users add. transformers starts the
    trackers at the begin of training, before the first batch is generated.
    """
    logs: dict[str, Log] = {}
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, WandbCallback):
            logs["wandb"] = partial(log_to_wandb, callback._wandb, step)
        elif isinstance(callback, TrackioCallback):
            logs["trackio"] = partial(_log_to_trackio, callback._trackio, step)
        elif isinstance(callback, TensorBoardCallback):
            logs["tensorboard"] = partial(log_to_tensorboard, callback.tb_writer, step)
    return logs


def _log_to_trackio(trackio: Any, step: int, page: Any) -> None:
    trackio.log({KEY: page, STEP: step}, step=step)  # whose steps may come in any order
