"""What a study found in words and a table; no sentence says more than its interval."""

import math
from collections import Counter

from estimator_study.comparing import LEVEL, Interval
from estimator_study.findings import Findings
from estimator_study.plan import BASELINE
from estimator_study.runs import MEASURES

IN_TABLE = [key for key in MEASURES if key != "relative_gradient_norm_variance"]
CLAIMED = -0.41  # of the variance of the gradient norm, by DGPO's paper


def table(findings: Findings) -> list[list[str]]:
    """A heading and a row per estimator; differences from the baseline are bold where zero is outside."""
    found = findings.against(BASELINE)
    heading = ["estimator", "runs", "accuracy", *(f"Δ {MEASURES[key].label}" for key in IN_TABLE)]
    rows = [[*heading, "effective fraction", "weight std"]]
    for name in findings.names:
        cells = [shown(key, found[key].get(name)) if name != BASELINE else "" for key in IN_TABLE]
        effect = [_number(findings.mean(name, key)) for key in ("effective_token_fraction", "weight_std")]
        rows.append([name, _count(findings, name), _number(findings.mean(name, "accuracy")), *cells, *effect])
    return rows


def markdown(rows: list[list[str]]) -> str:
    heading, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([heading, "|---" * len(rows[0]) + "|", *body])


def sentences(findings: Findings) -> list[str]:
    """The size of the study, then accuracy and the two claims of DGPO's paper by their intervals."""
    found = findings.against(BASELINE)
    said = [size(findings)]
    said += [sentence(key, found[key], BASELINE) for key in ("accuracy", "accuracy_over_training")]
    if "dapo" in findings.names:
        said.append(sentence("accuracy", findings.against("dapo")["accuracy"], "dapo"))
    norms = found["gradient_norm_variance"]
    said.append(f"{sentence('gradient_norm_variance', norms, BASELINE)} {claim(norms)}")
    said.append(
        "DGPO's paper claims less mode collapse. "
        + " ".join(sentence(key, found[key], BASELINE) for key in ("entropy", "diversity"))
    )
    return said


def claim(intervals: dict[str, Interval | None]) -> str:
    """For which forms of DGPO the interval holds the paper's claim about the gradient norm."""
    log = math.log1p(CLAIMED)
    places: dict[str, list[str]] = {"inside": [], "below": [], "above": []}
    for name, interval in intervals.items():
        if interval is not None and name.startswith("dgpo"):
            place = "below" if log < interval.low else "above" if log > interval.high else "inside"
            places[place].append(name)
    said = [f"{place} the interval of {', '.join(names)}" for place, names in places.items() if names]
    less = f"{-100 * CLAIMED:.0f} % less"
    return f"DGPO's paper claims {less} of it, which is {'; '.join(said) or 'not compared yet'}."


def size(findings: Findings) -> str:
    """How many runs, seeds and comparisons, and how many of these err by chance."""
    states = Counter(run.state for run in findings.runs)
    tasks = ", ".join(f"{task.replace('_', ' ')} {length}" for task, length in findings.cells)
    found = findings.against(BASELINE)
    count = sum(interval is not None for key in IN_TABLE for interval in found[key].values())
    return (
        f"{len(findings.runs)} runs ({', '.join(f'{n} {state}' for state, n in states.items())}): "
        f"{len(findings.names)} estimators, {len({run.seed for run in findings.runs})} seeds, on {tasks}. "
        f"The table has {count} differences from {BASELINE}, each with a {100 * LEVEL:.0f} % interval of its "
        f"own: if there were nothing to find, about {count * (1 - LEVEL):.0f} would exclude zero by chance."
    )


def sentence(key: str, intervals: dict[str, Interval | None], baseline: str) -> str:
    """Who is higher, who is lower, and where no difference was found; with numbers that no table shows."""
    measure = MEASURES[key]
    parts: dict[str, list[str]] = {"higher": [], "lower": [], "no difference found": [], "too few pairs": []}
    for name, interval in intervals.items():
        if interval is None:
            parts["too few pairs"].append(name)
        else:
            numbers = "" if baseline == BASELINE else f" ({interval.shown(measure.by_ratio)})"
            parts[interval.verdict].append(name + numbers)
    said = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in parts.items() if names)
    return f"{measure.label[0].upper()}{measure.label[1:]} against {baseline}: {said}."


def shown(key: str, interval: Interval | None) -> str:
    if interval is None:
        return "too few pairs"
    text = interval.shown(MEASURES[key].by_ratio)
    return text if interval.verdict == "no difference found" else f"**{text}**"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _count(findings: Findings, name: str) -> str:
    runs = findings.of(name)
    failed = sum(run.state == "failed" for run in runs)
    missing = sum(run.state == "not finished" for run in runs)
    text = str(len(runs)) + (f", {failed} FAILED" if failed else "")
    return text + (f", {missing} not finished" if missing else "")
