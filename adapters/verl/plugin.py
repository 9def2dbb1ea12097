"""The target of the `verl.plugins` entry point: every process that imports verl imports this."""

import logging
from importlib import import_module

logger = logging.getLogger("credit")

# In this order: the estimators of rewards alone work without what the trainers need (TransferQueue).
PARTS = {
    "credit.adapters.verl.rollouts": "no estimator of credit (adv_estimator=credit_...) is",
    "credit.adapters.verl.trainer": "trainer_mode=credit_sync, and with it credit_dgpo, is not",
}


def load() -> None:
    """Registers estimators and trainers; warns with the cause where that fails, which verl would hide."""
    for module, lost in PARTS.items():
        try:
            import_module(module)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            logger.warning("%s available in verl, since importing %s failed. %s", lost, module, cause)
            return


load()
