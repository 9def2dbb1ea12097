"""The metrics of a batch: an error where they tell of NaN, and several batches' as those of one.

TRL logs the mean of several batches, which is something else for extremes.
"""

from collections.abc import Mapping, MutableMapping
from math import isnan

EXTREMES = {"_min": min, "_max": max}


def combine_extremes(values: MutableMapping[str, list[float]]) -> None:
    """Replaces credit's minima and maxima since the last log by the one of all; TRL logs means of lists."""
    for name, found in values.items():
        combine = EXTREMES.get(name[-4:])
        known = [value for value in found if not isnan(value)]
        if combine is not None and name.startswith("credit/") and known:
            values[name] = [combine(known)]


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
