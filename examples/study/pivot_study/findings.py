"""What the records come down to: each arm beside GRPO, paired by cell and seed, corrected by Holm."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from estimator_study.comparing import Difference, compare_pairs, correct
from scipy import stats

Record = dict[str, Any]
BASELINE = "grpo"
PLATEAU = 0.2  # the last share of the steps, whose mean reward is that of the plateau
UNSHUFFLED, SHUFFLED = "dgpo half", "dgpo half, shuffled"
NOT_SHUFFLED = "dgpo half, less its shuffle"
EDGES = (0.05, 0.15, 0.3)  # of the bins of drift_alignment
FEWEST = 3  # pairs in a cell, of which gradients have four
FEWEST_POINTS = 4  # of a rank correlation
Values = dict[tuple[str, int], float]  # by cell and seed


def pick(records: Sequence[Record], kind: str) -> list[Record]:
    return [record for record in records if record["kind"] == kind]


def list_arms(records: Sequence[Record]) -> list[str]:
    """In the order of the plan."""
    if records and records[0]["kind"] == "drift":
        found = (point["arms"] for record in records for point in record["checkpoints"])
        return list(next(found, {}))
    return list(dict.fromkeys(record["arm"] for record in records))


def collect(records: Sequence[Record], value: Callable[[Record], float | None]) -> Values:
    """A number of each record that has one, averaged where a cell and seed have several."""
    found: dict[tuple[str, int], list[float]] = {}
    for record in records:
        number = value(record)
        if number is not None:
            found.setdefault((record["cell"], record["seed"]), []).append(number)
    return {key: fmean(numbers) for key, numbers in found.items()}


def compare(own: Values, other: Values) -> Difference | None:
    """The difference, a mean over cells of means over seeds; None where a cell has too few pairs."""
    by_cell: dict[str, list[float]] = {}
    for (cell, seed), number in own.items():
        if (cell, seed) in other:
            by_cell.setdefault(cell, []).append(number - other[cell, seed])
    return compare_pairs(by_cell, FEWEST)


def correct_all(found: dict[Any, Difference | None]) -> dict[Any, Difference | None]:
    """The same with p values corrected for the number of them all."""
    keys = [key for key, difference in found.items() if difference is not None]
    corrected = correct([found[key] for key in keys])  # type: ignore[misc]
    return found | dict(zip(keys, corrected, strict=True))


def read_checkpoints(measure: Callable[[Record], float | None]) -> Callable[[Record], float | None]:
    """The mean of a measure over a drift's checkpoints."""

    def value(record: Record) -> float | None:
        numbers = [measure(point) for point in record["checkpoints"]]
        known = [number for number in numbers if number is not None]
        return fmean(known) if known else None

    return value


def read_auc(arm: str) -> Callable[[Record], float | None]:
    return read_checkpoints(lambda point: point["arms"][arm]["auc"])


def read_gradient(arm: str, name: str) -> Callable[[Record], float | None]:
    return read_checkpoints(lambda point: point["gradients"][arm][name] if "gradients" in point else None)


def read_reward(record: Record) -> float:
    return fmean(record["rewards"])


def read_plateau(record: Record) -> float:
    rewards = record["rewards"]
    return fmean(rewards[-max(1, round(PLATEAU * len(rewards))) :])


def compare_gradients(drifts: Sequence[Record]) -> dict[tuple[str, str], Difference | None]:
    """By regime and arm: the cosine of a small batch's gradient with the true one, less GRPO's."""
    found: dict[tuple[str, str], Difference | None] = {}
    for regime in list_regimes(drifts):
        own = [record for record in drifts if record["regime"] == regime]
        values = {arm: collect(own, read_gradient(arm, "cosine")) for arm in list_arms(own)}
        if any(values.values()):
            found |= {(regime, arm): one for arm, one in compare_arms(values).items()}
    return correct_all(found)


def compare_trainings(trainings: Sequence[Record]) -> dict[tuple[str, str], Difference | None]:
    """By measure and arm: the reward over training and at the plateau, less GRPO's."""
    found: dict[tuple[str, str], Difference | None] = {}
    for measure, read in (("training", read_reward), ("plateau", read_plateau)):
        values = {
            arm: collect([record for record in trainings if record["arm"] == arm], read)
            for arm in list_arms(trainings)
        }
        found |= {(measure, arm): one for arm, one in compare_arms(values).items()}
    return correct_all(found)


def compare_arms(values: dict[str, Values]) -> dict[str, Difference | None]:
    """Every arm less GRPO, and DGPO less its own weights shuffled: which tokens, or just uneven weights?"""
    found = {arm: compare(own, values[BASELINE]) for arm, own in values.items() if arm != BASELINE}
    if SHUFFLED in values:
        found[NOT_SHUFFLED] = compare(values[UNSHUFFLED], values[SHUFFLED])
    return found


def list_regimes(drifts: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["regime"] for record in drifts))


def pair_alignments(drifts: Sequence[Record], arm: str) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """By cell and seed, of each checkpoint: drift_alignment, and the arm's gain over GRPO in cosine."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for record in drifts:
        for point in record["checkpoints"]:
            if "gradients" in point:
                gain = point["gradients"][arm]["cosine"] - point["gradients"][BASELINE]["cosine"]
                pair = point["arms"][BASELINE]["alignment"], gain
                found.setdefault((record["cell"], record["seed"]), []).append(pair)
    return found


def correlate_alignments(drifts: Sequence[Record]) -> dict[str, Difference | None]:
    """By arm: Spearman's rank correlation of the pairs of each cell and seed, against 0."""
    found = {}
    for arm in list_arms(drifts):
        if arm != BASELINE:
            pairs = pair_alignments(drifts, arm)
            values = {key: _correlate(each) for key, each in pairs.items() if len(each) >= FEWEST_POINTS}
            found[arm] = compare(values, dict.fromkeys(values, 0.0))
    return correct_all(found)


def bin_alignments(drifts: Sequence[Record], arm: str) -> list[list[float]]:
    """The gains of all checkpoints, by the bin of their drift_alignment."""
    bins: list[list[float]] = [[] for _ in range(len(EDGES) + 1)]
    for pairs in pair_alignments(drifts, arm).values():
        for alignment, gain in pairs:
            bins[sum(alignment >= edge for edge in EDGES)].append(gain)
    return bins


def _correlate(pairs: Sequence[tuple[float, float]]) -> float:
    found = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    return 0.0 if np.isnan(found) else found  # one of the two is constant
