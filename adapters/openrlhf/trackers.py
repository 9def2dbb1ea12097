"""OpenRLHF's loggers, and how each logs the completions of a step."""

from functools import partial
from typing import Any

from credit.adapters.trackers import KEY, STEP, Log, log_to_tensorboard, log_to_wandb


def find_logs(trainer: Any, step: int) -> dict[str, Log]:
    """The function by which each tracker that the user chose logs completions at that step."""
    logs: dict[str, Log] = {}
    if trainer.wandb_logger is not None:
        logs["wandb"] = partial(_log_to_wandb, trainer.wandb_logger.handle, step)
    if trainer.tensorboard_logger is not None:
        logs["tensorboard"] = partial(log_to_tensorboard, trainer.tensorboard_logger.writer, step)
    return logs


def _log_to_wandb(wandb: Any, step: int, page: Any) -> None:
    # OpenRLHF does so for its own names alone; said again with the next page, it changes nothing.
    wandb.define_metric(KEY, step_metric=STEP)
    log_to_wandb(wandb, step, page)
