"""One line of log where a framework's loss options differ from the paper's; they stay the user's."""

import logging
from collections.abc import Mapping
from typing import Any

from credit.loss import PolicyLoss

Option = tuple[str, Any]  # its name in the framework, and its value there


def report_loss_differences(
    logger: logging.Logger,
    framework: str,
    estimator: str,
    paper: PolicyLoss,
    pairs: Mapping[str, tuple[Any, Any]],
    aggregation: Option,
    aggregations: Mapping[str, str],
    hint: str = "",
) -> None:
    """Warns of every option of `pairs` whose value is not the paper's, and of another aggregation.

    `pairs` maps an option to (the framework's value, the paper's); `aggregations` maps the framework's
    names of aggregation to those of PolicyLoss; `hint` explains values that read strangely.
    """
    differing = [f"{name}={ours} ({theirs})" for name, (ours, theirs) in pairs.items() if ours != theirs]
    option, value = aggregation
    if aggregations.get(value) != paper.aggregation:
        wanted = [name for name, kind in aggregations.items() if kind == paper.aggregation]
        differing.insert(0, f"{option}={value} ({' or '.join(wanted) or paper.aggregation})")
    if differing:
        logger.warning(
            "%s's loss options are used as they are; %s has other values (in brackets%s): %s",
            framework,
            estimator,
            f"; {hint}" if hint else "",
            ", ".join(differing),
        )
