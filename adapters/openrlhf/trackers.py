"""OpenRLHF's loggers, and how each logs the completions of a step."""

from functools import partial
from typing import Any

from credit.adapters.trackers import Log, log_to_tensorboard, log_to_wandb


def find_logs(trainer: Any, step: int) -> dict[str, Log]:
    """The function by which each tracker that the user chose logs completions at that step."""
    logs: dict[str, Log] = {}
    if trainer.wandb_logger is not None:
        logs["wandb"] = partial(log_to_wandb, trainer.wandb_logger.handle, step)
    if trainer.tensorboard_logger is not None:
        logs["tensorboard"] = partial(log_to_tensorboard, trainer.tensorboard_logger.writer, step)
    return logs
