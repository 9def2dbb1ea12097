"""Metrics of several generated batches as those of one, where TRL's mean of them would be something else."""

from collections.abc import MutableMapping
from math import isnan

EXTREMES = {"_min": min, "_max": max}


def combine_extremes(values: MutableMapping[str, list[float]]) -> None:
    """Replaces credit's minima and maxima since the last log by the one of all; TRL logs means of lists."""
    for name, found in values.items():
        combine = EXTREMES.get(name[-4:])
        known = [value for value in found if not isnan(value)]
        if combine is not None and name.startswith("credit/") and known:
            values[name] = [combine(known)]
