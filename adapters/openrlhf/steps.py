"""The steps of OpenRLHF's trainer, of which the experience maker knows nothing."""

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, NamedTuple

from credit.adapters.hooks import check_functions
from credit.adapters.openrlhf import hooks


class Step(NamedTuple):
    """One step of training, of one batch."""

    number: int  # as OpenRLHF logs it, from 1
    trainer: Any  # which has the loggers


def announce_steps(module: ModuleType) -> None:
    """Makes the trainer of openrlhf.trainer.ppo_trainer tell its experience maker of each step."""
    check_functions(hooks.FRAMEWORK, hooks.TRAINER)
    module.BasePPOTrainer.train_step = _announced(module.BasePPOTrainer.train_step)


def _announced(train_step: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(train_step)
    def run(self: Any, rollout_samples: Any, global_step: int) -> Any:
        self.experience_maker.credit_step = Step(global_step + 1, self)
        return train_step(self, rollout_samples, global_step)

    return run
