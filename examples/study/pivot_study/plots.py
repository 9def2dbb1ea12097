"""Pictures of the findings."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pivot_study.findings import (
    BASELINE,
    Record,
    compare_gradients,
    list_arms,
    list_regimes,
    pair_alignments,
    pick,
)

COLOURS = {
    BASELINE: "#222222",
    "dgpo 0.1": "#4fa3e0",
    "dgpo half": "#1f6fb4",
    "dgpo half, shuffled": "#9bb8d3",
    "entropy half": "#edae49",
    "deviation half": "#7a4fa3",
    "relative half": "#12a150",
    "oracle": "#d1495b",
}
TRAININGS = {"training": "train", "calm": "calm"}  # names of pictures, and kinds of records
SHOWN_BY_DEVIATION = ("dgpo half", "entropy half", "deviation half", "relative half")
SHOWN_BY_ALIGNMENT = ("dgpo half", "deviation half", "relative half")
BLOCK = 10  # steps that a point of a training curve is the mean of


def save(records: Sequence[Record], folder: Path) -> list[Path]:
    """Every picture that the records suffice for."""
    drifts = pick(records, "drift")
    figures = {"auc": draw_auc(drifts)}
    found = {name: pick(records, kind) for name, kind in TRAININGS.items()}
    figures |= {name: draw_trainings(trainings) for name, trainings in found.items() if trainings}
    if compare_gradients(drifts):
        figures["gradients"] = draw_gradients(drifts)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110)
        plt.close(figure)
    return paths


def draw_auc(drifts: Sequence[Record]) -> Figure:
    """A row per cell, a column per regime; a point per seed and checkpoint, a line through the means."""
    cells, regimes = sorted({record["cell"] for record in drifts}), list_regimes(drifts)
    size = 3.2 * len(regimes) + 1.8, 2.4 * len(cells) + 0.6
    figure, axes = plt.subplots(
        len(cells), len(regimes), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for row, cell in enumerate(cells):
        for column, regime in enumerate(regimes):
            own = [r for r in drifts if (r["cell"], r["regime"]) == (cell, regime)]
            _draw_auc(axes[row, column], own)
            axes[0, column].set_title(regime, fontsize=10)
            axes[-1, column].set_xlabel("largest mean deviation of a kind")
        axes[row, 0].set_ylabel(f"{cell}\nAUC for pivots")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=9, frameon=False)
    return figure


def _draw_auc(axis: Axes, drifts: Sequence[Record]) -> None:
    for arm in SHOWN_BY_DEVIATION:
        if arm not in list_arms(drifts):
            continue
        by_level: dict[float, list[tuple[float, float]]] = {}
        for record in drifts:
            for point in record["checkpoints"]:
                drifted = max(point["deviation"].values())
                by_level.setdefault(point["level"], []).append((drifted, point["arms"][arm]["auc"]))
        points = np.array([pair for level in sorted(by_level) for pair in by_level[level]])
        means = np.array([np.mean(by_level[level], axis=0) for level in sorted(by_level)])
        axis.scatter(*points.T, s=8, color=COLOURS[arm], alpha=0.35, linewidths=0)
        axis.plot(*means.T, color=COLOURS[arm], linewidth=1.6, label=arm)
    axis.axhline(0.5, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_ylim(0, 1.03)
    axis.grid(alpha=0.25)


def draw_gradients(drifts: Sequence[Record]) -> Figure:
    """Left the differences in cosine by regime, right what a user can see of them."""
    found = compare_gradients(drifts)
    regimes = list(dict.fromkeys(regime for regime, _ in found))
    figure, axes = plt.subplots(
        1, len(regimes) + 1, figsize=(4.4 * len(regimes) + 5, 5.2), layout="constrained"
    )
    for axis, regime in zip(axes, regimes, strict=False):
        shown = {arm: one for (own, arm), one in found.items() if own == regime and one is not None}
        for row, one in enumerate(shown.values()):
            colour = "#8a8a8a" if one.verdict == "no difference found" else "#1f6fb4"
            ends = [[one.mean - one.low], [one.high - one.mean]]
            axis.errorbar(one.mean, row, xerr=ends, fmt="o", color=colour, capsize=3)
        axis.set_yticks(range(len(shown)), list(shown) if axis is axes[0] else [""] * len(shown))
        axis.invert_yaxis()
        axis.axvline(0.0, color="black", linewidth=0.8)
        axis.set_title(f"{regime}: cosine, less GRPO's", fontsize=10)
        axis.grid(alpha=0.25, axis="x")
    for arm in SHOWN_BY_ALIGNMENT:
        if arm in list_arms(drifts):
            pairs = np.array([pair for each in pair_alignments(drifts, arm).values() for pair in each])
            axes[-1].scatter(*pairs.T, s=16, color=COLOURS[arm], label=arm)
    axes[-1].axhline(0.0, color="black", linewidth=0.8)
    axes[-1].axvline(0.0, color="black", linewidth=0.8)
    axes[-1].set_xlabel("drift_alignment")
    axes[-1].set_ylabel("cosine, less GRPO's")
    axes[-1].legend(fontsize=8, frameon=False)
    return figure


def draw_trainings(trainings: Sequence[Record]) -> Figure:
    """A panel per cell: the mean over seeds of the reward, in blocks of steps."""
    cells = sorted({record["cell"] for record in trainings})
    figure, axes = plt.subplots(
        1, len(cells), figsize=(4.6 * len(cells) + 2, 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, cell in zip(axes[0], cells, strict=True):
        for arm in list_arms(trainings):
            own = [record for record in trainings if (record["cell"], record["arm"]) == (cell, arm)]
            curve = np.mean([record["rewards"] for record in own], axis=0)
            blocks = [curve[start : start + BLOCK] for start in range(0, len(curve), BLOCK)]
            places = [BLOCK * number + len(block) / 2 for number, block in enumerate(blocks)]
            width = 2.2 if arm == BASELINE else 1.3
            axis.plot(
                places,
                [fmean(block) for block in blocks],
                color=COLOURS.get(arm),
                linewidth=width,
                label=arm,
            )
        axis.set_title(cell, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("reward")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=9, frameon=False)
    return figure
