"""One line of log if a framework's loss options differ from the estimator's paper; they stay as they are."""

import logging
from collections.abc import Mapping
from typing import Any

from credit.adapters.framework import Framework
from credit.estimators.base import Estimator

logger = logging.getLogger("credit")


def report_loss_differences(
    framework: Framework,
    estimator: Estimator,
    options: Mapping[str, tuple[Any, Any]],
    aggregation: tuple[str, str],
) -> None:
    """Logs a warning that names every option whose value is not the paper's, and another aggregation.

    Args:
        options: the framework's loss options by name, each with (its value, the paper's value).
        aggregation: the name and value of the option that sets how token losses become one number.
    """
    differing = [f"{name}={value} ({paper})" for name, (value, paper) in options.items() if value != paper]
    option, value = aggregation
    wanted = estimator.loss.aggregation
    if framework.aggregations.get(value) != wanted:
        equivalents = [name for name, kind in framework.aggregations.items() if kind == wanted]
        differing.insert(0, f"{option}={value} ({' or '.join(equivalents) or wanted})")
    if differing:
        logger.warning(
            "%s's loss options are used as they are; %s has other values (in brackets%s): %s",
            framework.name,
            framework.name_of(estimator),
            f"; {framework.loss_hint}" if framework.loss_hint else "",
            ", ".join(differing),
        )
