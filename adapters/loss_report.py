"""One line of log if a framework's loss options differ from the estimator's paper; they stay as they are."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from credit.adapters.framework import Framework
from credit.estimators.base import Estimator
from credit.losses.checks import find_ineffective
from credit.losses.objectives import SETTINGS

logger = logging.getLogger("credit")

Option = tuple[str, Any, Any]
"""A framework's option, its value, and the value that it would have by the paper."""


def report_loss_differences(
    framework: Framework,
    estimator: Estimator,
    options: Mapping[str, Option],
    aggregation: tuple[str, str] | None,
    further: Iterable[Option] = (),
) -> None:
    """Logs a warning that names every option whose value is not the paper's, and what has no option.

    Args:
        options: by the setting of PolicyLoss that it expresses, the framework's option. A setting that is
            not named here, and that the estimator's loss sets, is reported as one without an option.
        aggregation: the name and value of the option that sets how token losses become one number; None if
            `options` has it.
        further: options that express no setting of PolicyLoss.
    """
    loss = estimator.loss
    ineffective = {name for name, reason in find_ineffective(loss).items() if reason}
    if "objective" not in options and loss.objective != "clip":  # then its settings mean nothing either
        ineffective |= set(SETTINGS[loss.objective])
    compared = [*(option for name, option in options.items() if name not in ineffective), *further]
    differing = [f"{name}={value} ({paper})" for name, value, paper in compared if value != paper]
    if aggregation and framework.aggregations.get(aggregation[1]) != loss.aggregation:
        equivalents = [name for name, kind in framework.aggregations.items() if kind == loss.aggregation]
        wanted = " or ".join(equivalents) or loss.aggregation
        differing.insert(0, f"{aggregation[0]}={aggregation[1]} ({wanted})")
    known = {*options, *ineffective, "aggregation"}
    unexpressed = [
        f"{name}={getattr(loss, name)!r}"
        for name, field in type(loss).model_fields.items()
        if name not in known and getattr(loss, name) != field.get_default(call_default_factory=True)
    ]
    if differing:
        logger.warning(
            "%s's loss options are used as they are; %s has other values (in brackets%s): %s%s",
            framework.name,
            framework.name_of(estimator),
            f"; {framework.loss_hint}" if framework.loss_hint else "",
            ", ".join(dict.fromkeys(differing)),
            f"; no option is known for its {', '.join(unexpressed)}" if unexpressed else "",
        )
    elif unexpressed:
        logger.warning(
            "%s's loss is used as it is; no option is known for %s of %s, which is without effect",
            framework.name,
            ", ".join(unexpressed),
            framework.name_of(estimator),
        )
