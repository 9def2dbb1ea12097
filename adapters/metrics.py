"""The metrics of a batch: an error where they tell of NaN, and several batches' as those of one.

TRL and ms-swift log the mean of several batches, which is something else for extremes.
"""

from collections.abc import Mapping, MutableMapping
from math import isnan

import torch

import credit
from credit.estimators.targets import warn_of_missed_targets

EXTREMES = {"_min": min, "_max": max}


def combine_extremes(values: MutableMapping[str, list[float]]) -> None:
    """Replaces credit's minima and maxima since the last log by the one of all; trainers log their means."""
    for name, found in values.items():
        combine = EXTREMES.get(name[-4:])
        known = [value for value in found if not isnan(value)]
        if combine is not None and name.startswith("credit/") and known:
            values[name] = [combine(known)]


def read_metrics(name: str, result: credit.Credit) -> dict[str, float]:
    """The metrics of an estimator's result as numbers; it warns if a target of the weights was missed.

    Raises:
        ValueError: an advantage is NaN.
    """
    values = torch.stack([value.float() for value in result.metrics.values()]).tolist()
    found = dict(zip(result.metrics, values, strict=True))
    refuse_nan_advantages(name, found)
    warn_of_missed_targets(found)
    return found


def refuse_nan_advantages(name: str, values: Mapping[str, float]) -> None:
    """Raises ValueError if the metrics of an estimator's result tell of an advantage that is NaN.

    One such token makes every weight of the model NaN in the step that follows.
    """
    if isnan(values["advantage_mean"]):
        raise ValueError(
            f"{name} gave an advantage that is NaN, which would ruin the model. If it is an estimator of "
            "yours, let it leave out rows that are not valid, and NaN among the rewards [N, K], where a "
            "function returned None, and among your own arrays; if not, the logits may be NaN already"
        )
