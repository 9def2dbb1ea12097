"""SkyRL: trainer.override_entrypoint=credit.adapters.skyrl trains with an estimator.

SkyRL imports this package in several processes, so that each module checks the functions that it uses.
"""

from credit.adapters.hooks import check_version
from credit.adapters.skyrl.hooks import FRAMEWORK
from credit.adapters.skyrl.python import refuse_unimportable

check_version(FRAMEWORK)
refuse_unimportable()


def main() -> None:
    """SkyRL's command with our estimators; SkyRL calls it for `trainer.override_entrypoint`."""
    from credit.adapters.skyrl import entrypoint  # which needs all of SkyRL, as a worker does not

    entrypoint.main()


__all__ = ["main"]
