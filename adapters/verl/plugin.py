"""The target of the `verl.plugins` entry point: every process that imports verl imports this.

It imports nothing of verl itself. credit's estimators are registered when verl's registry of estimators
has been imported, credit's trainers when verl's V1 trainers have been, and the checks of verl's older
trainers when those have been.
"""

import logging
from functools import partial
from importlib import import_module
from types import ModuleType

from credit.adapters.hooks import check_version
from credit.adapters.post_import import call_after_import
from credit.adapters.verl.hooks import FRAMEWORK

logger = logging.getLogger("credit")

ESTIMATORS = "estimators (adv_estimator=credit_...)"
TRAINERS = "trainers (trainer_mode=credit_sync, which credit_dgpo needs)"
LEGACY = "checks of settings in verl's older trainers"

# verl's module, the module of credit's that follows it, and what that module provides.
PARTS = {
    "verl.trainer.ppo.core_algos": ("credit.adapters.verl.registry", ESTIMATORS),
    "verl.trainer.ppo.v1": ("credit.adapters.verl.trainer", TRAINERS),
    "verl.trainer.ppo.ray_trainer": ("credit.adapters.verl.legacy", LEGACY),
}


def load() -> None:
    """Prepares the registration of estimators and trainers; warns if verl is another than expected."""
    try:
        check_version(FRAMEWORK)
    except ImportError as error:
        _warn(ESTIMATORS, error)
        return
    for theirs, (ours, provided) in PARTS.items():
        call_after_import(theirs, partial(_import_part, ours, provided))


def _import_part(name: str, provided: str, _: ModuleType) -> None:
    """Imports the module, and warns of a failure, which would otherwise end the import of verl."""
    try:
        import_module(name)
    except Exception as error:
        _warn(provided, error)


def _warn(provided: str, error: Exception) -> None:
    cause = f"{type(error).__name__}: {error}"
    logger.warning("credit's %s are not available in verl: %s", provided, cause)


load()
