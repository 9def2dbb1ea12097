"""OpenRLHF's loggers, and how each logs the completions of a step."""

from functools import partial
from typing import Any

from credit.adapters.trackers import KEY, Log

STEP = "train/global_step"
"""The metric by which OpenRLHF tells Weights & Biases the training step."""


def find_logs(trainer: Any, step: int) -> dict[str, Log]:
    """The function by which each tracker that the user chose logs completions at that step."""
    logs: dict[str, Log] = {}
    if trainer.wandb_logger is not None:
        logs["wandb"] = partial(_log_to_wandb, trainer.wandb_logger, step)
    if trainer.tensorboard_logger is not None:
        logs["tensorboard"] = partial(_log_to_tensorboard, trainer.tensorboard_logger, step)
    return logs


def _log_to_wandb(logger: Any, step: int, page: Any) -> None:
    # OpenRLHF names no step of wandb's own, which drops what comes with one smaller than its last.
    logger.handle.log({KEY: page, STEP: step})


def _log_to_tensorboard(logger: Any, step: int, text: str) -> None:
    logger.writer.add_text(KEY, text, step)
