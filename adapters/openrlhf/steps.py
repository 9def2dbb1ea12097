"""The steps of OpenRLHF's trainer and its loggers, of which the experience maker knows nothing."""

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, NamedTuple

from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import hooks
from credit.adapters.trackers import KEY, Log


class Step(NamedTuple):
    """One step of training, of one batch."""

    number: int  # as OpenRLHF logs it, from 1
    logs: dict[str, Log]  # of the trackers that the user chose


def announce_steps(module: ModuleType) -> None:
    """Makes the trainer of openrlhf.trainer.ppo_trainer tell its experience maker of each step."""
    check_functions(hooks.FRAMEWORK, hooks.TRAINER)
    module.BasePPOTrainer.train_step = _announced(module.BasePPOTrainer.train_step)


def _announced(train_step: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(train_step)
    def run(self: Any, rollout_samples: Any, global_step: int) -> Any:
        number = global_step + 1
        self.experience_maker.credit_step = Step(number, list_logs(self, number))
        return train_step(self, rollout_samples, global_step)

    return run


def list_logs(trainer: Any, number: int) -> dict[str, Log]:
    """What logs into each of the trackers that the trainer has, at the step of that number.

    Weights & Biases counts calls of its own accord, since OpenRLHF names no step to it; the page stands at
    OpenRLHF's step as its metrics do.
    """
    wandb, tensorboard = trainer.wandb_logger, trainer.tensorboard_logger
    logs: dict[str, Log] = {}
    if wandb is not None:
        logs["wandb"] = lambda page: wandb.handle.log({KEY: page, "train/global_step": number})
    if tensorboard is not None:
        logs["tensorboard"] = lambda text: tensorboard.writer.add_text(KEY, text, number)
    return logs
