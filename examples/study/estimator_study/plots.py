"""Curves over training and paired differences with their intervals, as PNGs."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from estimator_study.comparing import Difference
from estimator_study.plan import BASELINE
from estimator_study.runs import MEASURES, TESTED, Run
from estimator_study.training import Record

Points = list[tuple[float, float]]
BLOCK = 10  # steps that a point is the mean of
COLOURS = ["#222222", "#999999", "#1f6fb4", "#4fa3e0", "#12c2b5", "#d1495b", "#edae49", "#7a4fa3"]


def _evaluated(name: str) -> Callable[[Run], Points]:
    return lambda run: [(e["evaluated"], e[name]) for e in run.evaluations if e[name] is not None]


def _stepped(value: Callable[[Record], float]) -> Callable[[Run], Points]:
    def points(run: Run) -> Points:
        blocks = [run.steps[start : start + BLOCK] for start in range(0, len(run.steps), BLOCK)]
        return [(fmean(s["step"] for s in block), fmean(map(value, block))) for block in blocks]

    return points


CURVES: dict[str, Callable[[Run], Points]] = {
    "accuracy": _evaluated("accuracy"),
    "entropy (nats)": _evaluated("entropy"),
    "diversity of\nright answers": _evaluated("diversity"),
    "gradient norm": _stepped(lambda step: fmean(step["gradient_norms"])),
    "effective token\nfraction": _stepped(lambda step: step["effective_token_fraction"]),
    "deviation from\nthe warm-up": _stepped(lambda step: step["deviation"]),
}


def curves(runs: list[Run], task: str) -> Figure:
    """Means over the seeds of the runs that did not fail; columns are lengths of the task."""
    runs = [run for run in runs if run.task == task and not run.failed]
    lengths = sorted({run.length for run in runs})
    shown = {label: points for label, points in CURVES.items() if any(points(run) for run in runs)}
    size = (3.6 * len(lengths) + 2.2, 1.9 * len(shown) + 0.6)
    figure, axes = plt.subplots(
        len(shown), len(lengths), figsize=size, sharex=True, sharey="row", squeeze=False, layout="constrained"
    )
    for column, length in enumerate(lengths):
        axes[0, column].set_title(f"{task.replace('_', ' ')}, length {length}", fontsize=11)
        axes[-1, column].set_xlabel("step")
        for axis, points in zip(axes[:, column], shown.values(), strict=True):
            _curves(axis, [run for run in runs if run.length == length], points)
    for axis, label in zip(axes[:, 0], shown, strict=True):
        axis.set_ylabel(label, fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=9, frameon=False)
    return figure


def _curves(axis: Axes, runs: list[Run], points: Callable[[Run], Points]) -> None:
    """A line per estimator: the mean at the places where all of its seeds have a point."""
    for number, name in enumerate(dict.fromkeys(run.estimator for run in runs)):
        of_seeds = [dict(points(run)) for run in runs if run.estimator == name]
        places = sorted(set.intersection(*map(set, of_seeds)))
        means = [fmean(seed[place] for seed in of_seeds) for place in places]
        width = 2.2 if name == BASELINE else 1.3
        axis.plot(places, means, color=COLOURS[number % len(COLOURS)], linewidth=width, label=name)
    axis.grid(alpha=0.25)


def differences(found: dict[str, dict[str, Difference | None]]) -> Figure:
    """For each tested measure the paired differences from the baseline; blue is what Holm leaves."""
    columns = 3
    rows = -(-len(TESTED) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 2.6 * rows), squeeze=False, sharey=True, layout="constrained"
    )
    for axis in axes.flat[len(TESTED) :]:
        axis.set_visible(False)
    for axis, key in zip(axes.flat, TESTED, strict=False):
        _differences(axis, key, found[key])
    figure.suptitle(
        f"paired differences from {BASELINE}, each with its own 95 % interval; "
        "blue: p below 0.05 after Holm's correction",
        fontsize=11,
    )
    return figure


def _differences(axis: Axes, key: str, found: dict[str, Difference | None]) -> None:
    for row, difference in enumerate(found.values()):
        if difference is None:
            continue
        ends = np.array([difference.mean, difference.low, difference.high])
        middle, low, high = 100 * np.expm1(ends) if MEASURES[key].by_ratio else ends
        colour = "#1f6fb4" if difference.verdict in ("higher", "lower") else "#8a8a8a"
        axis.errorbar(middle, row, xerr=[[middle - low], [high - middle]], fmt="o", color=colour, capsize=3)
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(found)), list(found))
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set_title(MEASURES[key].label + (", %" if MEASURES[key].by_ratio else ""), fontsize=10)
    axis.grid(alpha=0.25, axis="x")
    axis.locator_params(axis="x", nbins=5)


def save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
