"""The findings as tables in Markdown; bold is what holds after Holm's correction."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from textwrap import fill
from typing import Any

from estimator_study.comparing import Difference
from estimator_study.writing import markdown

from pivot_study.findings import (
    BASELINE,
    EDGES,
    NOT_SHUFFLED,
    Record,
    Values,
    bin_alignments,
    collect,
    compare_gradients,
    compare_trainings,
    correlate_alignments,
    list_arms,
    list_regimes,
    pick,
    read_auc,
    read_gradient,
    read_plateau,
    read_reward,
)

WIDTH = 140  # of the docs


def write(records: Sequence[Record]) -> str:
    """All tables, each after a line that says what it shows."""
    drifts, trainings = pick(records, "drift"), pick(records, "train")
    parts = [
        "The chance that a pivot has a higher weight than another token (AUC; 0.5 is chance), by the regime "
        "that made the drift. Means over seeds and checkpoints:",
        markdown(tabulate_auc(drifts)),
        *_write_gradients(drifts),
        "Mean reward over training and over its last fifth, as differences from GRPO's with 95 % intervals; "
        "each arm at the learning rate that was best for it on other seeds:",
        markdown(tabulate_trainings(trainings)),
        _describe_correction(compare_trainings(trainings)),
        *_write_calm_trainings(pick(records, "calm")),
    ]
    return "\n\n".join(part if part.startswith("|") else fill(part, WIDTH) for part in parts if part) + "\n"


def _write_calm_trainings(trainings: Sequence[Record]) -> list[str]:
    if not trainings:
        return []
    return [
        "The same with one small learning rate for all and four groups a step, so that drift is by signal:",
        markdown(tabulate_trainings(trainings)),
        _describe_correction(compare_trainings(trainings)),
    ]


def tabulate_auc(drifts: Sequence[Record]) -> list[list[str]]:
    """A row per arm, a column per cell and regime."""
    regimes, cells = list_regimes(drifts), sorted({record["cell"] for record in drifts})
    columns = [(cell, regime) for cell in cells for regime in regimes]
    rows = [["weights", *(f"{cell}: {regime}" for cell, regime in columns)]]
    for arm in list_arms(drifts):
        if arm != BASELINE:
            numbers = (
                _mean(collect([r for r in drifts if (r["cell"], r["regime"]) == column], read_auc(arm)))
                for column in columns
            )
            rows.append([arm, *numbers])
    return rows


def _write_gradients(drifts: Sequence[Record]) -> list[str]:
    found = compare_gradients(drifts)
    if not found:
        return []
    return [
        "The cosine of a gradient of 128 responses with the true one, as a difference from GRPO's with its "
        "95 % interval, and the signal-to-noise ratio (SNR) of that gradient:",
        markdown(tabulate_gradients(drifts)),
        _describe_correction(found),
        "What a user can see of it: the gain in cosine over GRPO by the metric `drift_alignment` of the "
        "checkpoint's batch of 256 responses, in how many checkpoints it is a gain, and the rank "
        "correlation of the two within a seed:",
        markdown(tabulate_alignments(drifts)),
        _describe_correction(correlate_alignments(drifts)),
    ]


def tabulate_gradients(drifts: Sequence[Record]) -> list[list[str]]:
    """A row per arm; for each regime the difference and the ratio."""
    found = compare_gradients(drifts)
    regimes = list(dict.fromkeys(regime for regime, _ in found))
    rows = [["weights", *(f"{regime}: {name}" for regime in regimes for name in ("cosine", "SNR"))]]
    for arm in [*list_arms(drifts), NOT_SHUFFLED]:
        row = [arm]
        for regime in regimes:
            own = [record for record in drifts if record["regime"] == regime]
            if arm == BASELINE:
                row.append(_mean(collect(own, read_gradient(arm, "cosine"))))
            else:
                row.append(show(found.get((regime, arm))))
            row.append(_mean(collect(own, read_gradient(arm, "snr"))) if arm != NOT_SHUFFLED else "")
        rows.append(row)
    return rows


def tabulate_trainings(trainings: Sequence[Record]) -> list[list[str]]:
    """A row per arm: the learning rates, and rewards as differences from GRPO's."""
    found = compare_trainings(trainings)
    rows = [["weights", "learning rates", "reward over training", "at the plateau"]]
    for arm in [*list_arms(trainings), NOT_SHUFFLED]:
        own = [record for record in trainings if record["arm"] == arm]
        rates = dict.fromkeys((record["cell"], record["rate"]) for record in own)
        row = [arm, ", ".join(f"{cell} {rate:g}" for cell, rate in rates)]
        for measure, read in (("training", read_reward), ("plateau", read_plateau)):
            row.append(_mean(collect(own, read)) if arm == BASELINE else show(found.get((measure, arm))))
        rows.append(row)
    return rows


def show(difference: Difference | None) -> str:
    """`+0.031 [+0.010, +0.052]`, bold where it holds after the correction."""
    if difference is None:
        return "too few pairs"
    text = difference.show(by_ratio=False)
    return text if difference.verdict == "no difference found" else f"**{text}**"


def _describe_correction(found: Mapping[Any, Difference | None]) -> str:
    tested = [difference for difference in found.values() if difference is not None]
    if not tested:
        return ""
    largest = max((one.holm_p or 0.0 for one in tested if one.verdict != "no difference found"), default=None)
    said = f"Bold: what holds at 5 % after Holm's correction for these {len(tested)} differences"
    return said + (f" (corrected p up to {largest:.2g})." if largest is not None else "; none does.")


def tabulate_alignments(drifts: Sequence[Record]) -> list[list[str]]:
    """A row per arm: the mean gain in each bin of drift_alignment, how often it is one, the correlation."""
    edges = [f"{edge:g}" for edge in EDGES]
    bins = [f"below {edges[0]}", *(f"{low} to {high}" for low, high in pairwise(edges)), f"above {edges[-1]}"]
    found = correlate_alignments(drifts)
    rows = [["weights", *bins, "rank correlation"]]
    for arm, correlation in found.items():
        cells = (_describe_bin(gains) for gains in bin_alignments(drifts, arm))
        rows.append([arm, *cells, show(correlation)])
    return rows


def _describe_bin(gains: Sequence[float]) -> str:
    if not gains:
        return ""
    return f"{fmean(gains):+.3f} ({sum(gain > 0 for gain in gains)} of {len(gains)})"


def _mean(values: Values) -> str:
    """The mean over cells of the mean over seeds."""
    by_cell: dict[str, list[float]] = {}
    for (cell, _), number in values.items():
        by_cell.setdefault(cell, []).append(number)
    return f"{fmean(fmean(numbers) for numbers in by_cell.values()):.3f}" if by_cell else ""
