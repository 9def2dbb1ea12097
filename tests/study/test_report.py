"""Two short runs from the command to the page, and the statistics behind the sentences."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from estimator_study import comparing, runs, writing
from estimator_study.comparing import bootstrap
from estimator_study.findings import Findings
from estimator_study.runs import MEASURES, Run

ROOT = Path(__file__).parents[2]


def study(folder, *flags):
    command = [sys.executable, ROOT / "examples/study/run.py", "--plan", "smoke", "--workers", "1"]
    return subprocess.run(
        [*command, "--output", folder, *flags], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.slow
def test_two_short_runs_and_their_report(tmp_path):
    stopped = study(tmp_path, "--time-limit", "0.001")
    assert stopped.returncode == os.EX_TEMPFAIL
    assert "the same command goes on from here" in stopped.stdout
    done = study(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2/2 runs, 0 failed" in done.stderr
    assert "8/8" in done.stderr
    found = json.loads((tmp_path / "runs.json").read_text())
    assert [run["state"] for run in found] == ["finished", "finished"]
    assert all(0.0 <= run["accuracy"] <= run["best_of_k"] <= 1.0 for run in found)
    assert json.loads((tmp_path / "summary.json").read_text())["settings"]["steps"] == 4
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(list(tmp_path.glob("*.png"))) == 2
    assert "http" not in page


def made_up(accuracies, failed=()):
    """Finished runs of one task with the given accuracies, {estimator: one per seed}."""
    for name, values in accuracies.items():
        for seed, value in enumerate(values):
            run = Run("sorting", 4, seed, name, {}, finished=True)
            run.evaluations = [
                {"evaluated": step, "accuracy": value, "best_of_k": 1.0, "entropy": 0.5, "diversity": None}
                for step in (0, 1)
            ]
            shown = {"effective_token_fraction": 1.0, "weight_std": 0.0, "deviation": 0.0}
            run.steps = [{"step": 1, "gradient_norms": [1.0, 2.0 + value], **shown}]
            run.failed = "it broke" if (name, seed) in failed else None
            yield run


def test_sentences_follow_the_intervals():
    base = np.array([0.30, 0.35, 0.25, 0.40, 0.33])
    noise = np.array([0.02, -0.03, 0.01, -0.01, 0.02])
    found = list(
        made_up(
            {
                "grpo": base,
                "better": base + 0.1 + 0.1 * noise,
                "same": base + noise,
                "worse": base - 0.2 + noise,
            }
        )
    )
    intervals = Findings(found).against("grpo")["accuracy"]
    said = writing.sentence("accuracy", intervals, "grpo")
    assert said == "Accuracy against grpo: higher: better; lower: worse; no difference found: same."
    said = writing.sentence("accuracy", intervals, "dapo")
    assert "higher: better (+0.100 [" in said
    assert "lower: worse (-0.198 [" in said


def test_the_papers_claim_is_held_against_the_interval():
    claimed = bootstrap([np.log([0.55, 0.59, 0.62, 0.60])])
    unchanged = bootstrap([np.log([0.95, 1.01, 1.02, 1.03])])
    said = writing.claim({"dapo": claimed, "dgpo 0.5": claimed, "dgpo 0.1": unchanged})
    assert said.endswith(
        "41 % less of it, which is inside the interval of dgpo 0.5; below the interval of dgpo 0.1."
    )


def test_failed_runs_are_shown_and_their_pairs_are_left_out():
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    findings = Findings(list(made_up({"grpo": values, "other": values}, failed={("other", 1)})))
    assert findings.against("grpo")["accuracy"]["other"].pairs == 5
    assert writing.table(findings)[2][1] == "6, 1 FAILED"
    assert "1 failed" in writing.size(findings)
    assert [run["failed"] for run in findings.numbers()].count("it broke") == 1


def test_pairs_are_by_seed():
    base = np.array([0.1, 0.5, 0.9, 0.3, 0.2])
    found = list(made_up({"grpo": base, "other": base + 0.1}))
    interval = comparing.compare(found, "other", "grpo", MEASURES["accuracy"])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.1, 0.1, 0.1))


def test_few_pairs_give_no_interval():
    found = list(made_up({"grpo": [0.1, 0.2, 0.3, 0.4], "other": [0.2, 0.3, 0.4, 0.5]}))
    assert comparing.compare(found, "other", "grpo", MEASURES["accuracy"]) is None


def test_ratios_are_shown_in_percent():
    doubled = bootstrap([np.log(np.array([2.0, 2.0, 2.0]))])
    assert doubled.shown(by_ratio=True) == "+100 % [+100 %, +100 %]"


@pytest.mark.parametrize("sizes", [(5,), (8, 8, 8)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(sizes, monkeypatch):
    monkeypatch.setattr(comparing, "RESAMPLES", 1000)
    rng = np.random.default_rng(1)
    found = [bootstrap([1.0 + rng.normal(size=size) for size in sizes]) for _ in range(400)]
    assert 0.91 < np.mean([one.low <= 1.0 <= one.high for one in found]) < 0.99


def test_diversity_is_the_chance_that_two_right_answers_differ():
    from estimator_study.sampling import diversity

    texts = ["a", "a", "b", "x", "c", "d", "x", "x"]
    assert diversity(texts, [1, 1, 1, 0, 1, 1, 0, 0], samples=4) == pytest.approx((2 / 3 + 1) / 2)
    assert diversity(texts, [0, 0, 0, 1, 0, 0, 1, 0], samples=4) is None


def test_a_run_that_did_not_end_has_no_numbers():
    (run,) = made_up({"grpo": [0.5]})
    run.finished = False
    assert runs.measured(run, MEASURES["accuracy"]) is None
