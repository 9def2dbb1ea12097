"""What a run did: a table for the terminal and a plot."""

from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import credit

CURVES = {
    "reward": ("reward", "mean reward"),
    "credit/deviation_mean": ("deviation", "squared Hellinger distance\nto the reference"),
    "credit/effective_token_fraction": ("effective token fraction", "(Σw)² / (T Σw²)"),
}


def table(
    estimator: credit.Estimator,
    before: dict[str, float],
    after: dict[str, float],
    size: int,
    history: list[dict],
) -> None:
    """Accuracy before and after, and what the estimator did to its tokens."""
    error = (0.25 / size) ** 0.5
    print(f"\n{estimator!r}\n\n{'accuracy':<12}{'before':>10}{'after':>10}")
    for name in before:
        print(f"{name:<12}{before[name]:>10.3f}{after[name]:>10.3f}")
    print(f"on {size} held-out prompts; standard error at most {error:.3f}\n")
    logged = [entry for entry in history if "credit/weight_std" in entry]
    if not logged:
        return
    last = logged[-1]
    for name in ("deviation_mean", "gate_mean", "weight_min", "weight_max", "weight_std"):
        if f"credit/{name}" in last:
            print(f"{name:<18}{last[f'credit/{name}']:>10.4f}")
    aligned = [entry["credit/drift_alignment"] for entry in logged if "credit/drift_alignment" in entry]
    if aligned:
        print(f"{'drift_alignment':<18}{fmean(aligned):>10.4f}   mean over the run")
    largest = max(entry["credit/weight_std"] for entry in logged)
    if estimator.needs and largest < 0.1:
        print(
            f"\nThe weights moved by {largest:.1%} at the most (std): this run was GRPO in all but name.\n"
            "A smaller tau makes the estimator act, which is not to say that it learns better: docs/study.md."
        )


def plot(history: list[dict], path: Path) -> Path:
    """Reward, deviation and effective token fraction over the steps, as a PNG."""
    present = {key: names for key, names in CURVES.items() if any(key in entry for entry in history)}
    figure, axes = plt.subplots(len(present), 1, figsize=(7, 2.4 * len(present)), sharex=True, squeeze=False)
    for axis, (key, (title, label)) in zip(axes[:, 0], present.items(), strict=True):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        axis.plot(*zip(*points, strict=True), color="#2b6cb0")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel(label, fontsize=8)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
