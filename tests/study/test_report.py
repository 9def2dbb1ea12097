"""Two short runs from the command to the page, and reports where the journals are gone or spoiled."""

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from estimator_study import journal, runs, writing
from estimator_study.findings import Findings
from estimator_study.sampling import diversity

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "examples/study/results"
TIME_IS_OVER = 75


@pytest.fixture(scope="module")
def report():
    """The script, whose name another example's has too."""
    spec = importlib.util.spec_from_file_location("study_report", ROOT / "examples/study/report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def study(folder, *flags):
    command = [sys.executable, ROOT / "examples/study/run.py", "--plan", "smoke", "--workers", "1"]
    return subprocess.run(
        [*command, "--output", folder, *flags], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.slow
def test_two_short_runs_and_their_report(tmp_path):
    stopped = study(tmp_path, "--time-limit", "0.001")
    assert stopped.returncode == TIME_IS_OVER, stopped.stderr
    assert "the same command goes on from here" in stopped.stdout
    assert list(tmp_path.glob("*.pt"))
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


def test_what_is_published_is_what_the_published_runs_say(report):
    text = report.write(Findings(runs.load(PUBLISHED)))
    assert text in report.PAGE.read_text(encoding="utf-8")


def test_a_report_without_journals_has_numbers_differences_and_the_curves_that_are_left(
    report, tmp_path, monkeypatch
):
    monkeypatch.setattr("estimator_study.comparing.RESAMPLES", 200)
    for path in PUBLISHED.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "differences.png").unlink()
    text = report.make(tmp_path)
    assert "192 runs (192 finished)" in text
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() - before.keys() == {"index.html"}
    for name in ("runs.json", "curves-brackets.png", "curves-running_sums.png"):
        assert after[name] == before[name]
    old, new = (json.loads(files["summary.json"]) for files in (before, after))
    assert (old["settings"], old["estimators"]) == (new["settings"], new["estimators"])
    assert after["index.html"].decode().count("data:image/png;base64,") == 3


def test_publishing_the_published_folder_keeps_it(report, tmp_path, monkeypatch):
    folder, readme = tmp_path / "results", tmp_path / "README.md"
    folder.mkdir()
    (folder / "runs.json").write_text("[]")
    readme.write_text("before\n<!-- python examples/study/report.py -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(report, "RESULTS", folder)
    monkeypatch.setattr(report, "PAGE", readme)
    report.publish(folder, "new\n")
    assert (folder / "runs.json").exists()
    assert "report.py -->\nnew\n" in readme.read_text()
    assert "old" not in readme.read_text()


def test_a_measure_that_is_not_in_the_numbers_is_named(tmp_path, make_runs):
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    entries = Findings(make_runs({"grpo": values, "other": values})).numbers()
    for entry in entries:
        del entry["entropy"], entry["weight_std"]
    (tmp_path / "runs.json").write_text(json.dumps(entries))
    findings = Findings(runs.load(tmp_path))
    said = " ".join(writing.sentences(findings))
    assert "Not in runs.json, and so not reported: entropy (nats), std of the weights." in said
    assert "Entropy" not in said
    assert "not in runs.json" in writing.table(findings)[2]


def test_numbers_that_no_study_wrote_are_refused_by_name(tmp_path):
    for text in ("[{", '[{"task": "sorting"}]', "[3]"):
        (tmp_path / "runs.json").write_text(text)
        with pytest.raises(journal.Unusable, match=r"runs\.json does not hold a study's runs"):
            runs.load(tmp_path)


def test_a_folder_without_a_step_has_no_report(report, tmp_path, capsys):
    assert report.make(tmp_path) is None
    assert "holds no steps of a study yet" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_console_without_greek_letters_is_no_failure(report, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    report.say("Δ accuracy")
    console.flush()
    assert console.buffer.getvalue().strip() == b"? accuracy"


def test_diversity_is_the_chance_that_two_right_answers_differ():
    texts = ["a", "a", "b", "x", "c", "d", "x", "x"]
    assert diversity(texts, [1, 1, 1, 0, 1, 1, 0, 0], samples=4) == pytest.approx((2 / 3 + 1) / 2)
    assert diversity(texts, [0, 0, 0, 1, 0, 0, 1, 0], samples=4) is None
