"""What a study found in words and a table; no sentence says more than the corrected p values allow."""

import math

from estimator_study.comparing import FEWEST, LEVEL, Difference, show_size
from estimator_study.findings import Findings
from estimator_study.plan import BASELINE
from estimator_study.runs import ALL_MEASURES, MEASURES, TESTED

CLAIMED = -0.41  # of the variance of the gradient norm, by DGPO's paper
LIMIT = 1.0 - LEVEL
SCALE = "the variance itself grows with the norm's scale"


def table(findings: Findings) -> list[list[str]]:
    """A heading and a row per estimator; differences are bold where the corrected p value is below 5 %."""
    found = findings.against(BASELINE)
    heading = ["estimator", "runs", "accuracy", *(f"Δ {MEASURES[key].label}" for key in TESTED)]
    rows = [[*heading, "effective fraction", "weight std"]]
    for name in findings.names:
        cells = [show(key, found[key].get(name), findings) if name != BASELINE else "" for key in TESTED]
        effect = [_number(findings.mean(name, key)) for key in ("effective_token_fraction", "weight_std")]
        rows.append([name, _count(findings, name), _number(findings.mean(name, "accuracy")), *cells, *effect])
    return rows


def markdown(rows: list[list[str]]) -> str:
    heading, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([heading, "|---" * len(rows[0]) + "|", *body])


def sentences(findings: Findings) -> list[str]:
    """The size of the study, then accuracy and the two claims of DGPO's paper as far as they were tested."""
    found = findings.against(BASELINE)

    def say(*keys: str) -> str:
        known = [key for key in keys if key not in findings.missing]
        return " ".join(sentence(key, found[key], BASELINE) for key in known)

    said = [size(findings), *absent(findings), say("accuracy"), say("accuracy_over_training")]
    if "dapo" in findings.names and "accuracy" not in findings.missing:
        differences = findings.against("dapo")
        corrected = f"P values of this line are corrected for all {count(differences)} differences from dapo."
        said.append(f"{sentence('accuracy', differences['accuracy'], 'dapo')} {corrected}")
    variances = found["relative_gradient_norm_variance"]
    told = f"{say('relative_gradient_norm_variance')} {claim(variances)}"
    said.append(f"{told} It is relative to the mean squared, since {SCALE}; summary.json has both.")
    said.append(f"DGPO's paper claims less mode collapse. {say('entropy', 'diversity')}")
    return [text.strip() for text in said if text]


def size(findings: Findings) -> str:
    """How many runs, seeds and differences, and what is said of each difference."""
    tasks = ", ".join(f"{task.replace('_', ' ')} {length}" for task, length in findings.cells)
    number = count(findings.against(BASELINE))
    runs = (
        f"{len(findings.runs)} runs ({', '.join(f'{n} {state}' for state, n in findings.states().items())})"
    )
    seeds = len({run.seed for run in findings.runs})
    said = f"{runs}: {len(findings.names)} estimators, {seeds} seeds, on {tasks}."
    if not number:
        return f"{said} No estimator has the {FEWEST} pairs on each task that a difference needs."
    return (
        f"{said} The table has {number} differences from {BASELINE}: the size of each with a "
        f"{100 * LEVEL:.0f} % bootstrap interval of its own, then the p value of a t test on the paired "
        f"differences, pooled over tasks and corrected by Holm's method for all {number}. Bold, higher and "
        f"lower are what has p ≤ {LIMIT:.2f} after that."
    )


def absent(findings: Findings) -> list[str]:
    """Which measures the records do not have; nothing where they have all."""
    labels = [ALL_MEASURES[key].label for key in findings.missing]
    return [f"Not in runs.json, and so not reported: {', '.join(labels)}."] if labels else []


def count(found: dict[str, dict[str, Difference | None]]) -> int:
    """The differences for whose number p values are corrected."""
    return sum(difference is not None for key in TESTED for difference in found[key].values())


def claim(differences: dict[str, Difference | None]) -> str:
    """For which forms of DGPO the interval holds the paper's claim about the gradient norm."""
    log = math.log1p(CLAIMED)
    places: dict[str, list[str]] = {"inside": [], "below": [], "above": []}
    for name, difference in differences.items():
        if difference is not None and name.startswith("dgpo"):
            place = "below" if log < difference.low else "above" if log > difference.high else "inside"
            places[place].append(name)
    said = [f"{place} the interval of {', '.join(names)}" for place, names in places.items() if names]
    less = f"{-100 * CLAIMED:.0f} % less"
    return f"DGPO's paper claims {less} variance, which is {'; '.join(said) or 'not compared yet'}."


def sentence(key: str, differences: dict[str, Difference | None], baseline: str) -> str:
    """Who is higher, who is lower, and where no difference was found: the sizes, then the p values."""
    measure = MEASURES[key]
    parts: dict[str, list[str]] = {"higher": [], "lower": [], "no difference found": [], "too few pairs": []}
    for name, difference in differences.items():
        if difference is None:
            parts["too few pairs"].append(name)
        else:
            told = f"{show_size(difference.mean, measure.by_ratio)}, {difference.show_p()}"
            parts[difference.verdict].append(f"{name} ({told})")
    said = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in parts.items() if names)
    return f"{measure.label[0].upper()}{measure.label[1:]} against {baseline}: {said}."


def show(key: str, difference: Difference | None, findings: Findings) -> str:
    """A cell of a table: size, interval and p value."""
    if difference is None:
        return "not in runs.json" if key in findings.missing else "too few pairs"
    text = f"{difference.show(MEASURES[key].by_ratio)}, {difference.show_p()}"
    return f"**{text}**" if difference.verdict in ("higher", "lower") else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _count(findings: Findings, name: str) -> str:
    runs = findings.of(name)
    failed = sum(run.state == "failed" for run in runs)
    missing = sum(run.state == "not finished" for run in runs)
    text = str(len(runs)) + (f", {failed} FAILED" if failed else "")
    return text + (f", {missing} not finished" if missing else "")
