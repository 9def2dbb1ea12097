"""The study of pivots from the command to the page, and what it refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pivot_study import report, work, writing
from pivot_study.plan import (
    PLANS,
    RATE_SEED,
    list_calm_trainings,
    list_drifts,
    list_rates,
    list_trainings,
    list_warm_ups,
)

ROOT = Path(__file__).parents[2]
TINY = replace(PLANS["smoke"], warm_up_steps=2, training_steps=2)
pytestmark = pytest.mark.filterwarnings("ignore:effective_fraction is missed")


def run_command(*flags):
    command = [sys.executable, ROOT / "examples/study/pivots.py", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def compute_all(folder):
    """A tiny study in this process."""
    work.remember(TINY, folder)
    first = list_warm_ups(TINY) + list_drifts(TINY) + list_rates(TINY)
    for piece in first:
        work.compute(piece, TINY, folder)
    found = [work.read(folder / f"{piece.name}.json") for piece in first]
    trainings = list_trainings(TINY, work.choose_rates(found)) + list_calm_trainings(TINY)
    for piece in trainings:
        work.compute(piece, TINY, folder)
    return found + [work.read(folder / f"{piece.name}.json") for piece in trainings]


def test_pieces_have_names_of_their_own_and_rates_are_chosen_on_other_seeds():
    plan = PLANS["reduced"]
    rates = list_rates(plan)
    chosen = {(piece.cell.name, piece.arm): piece.regime.rate for piece in rates}
    pieces = [*list_warm_ups(plan), *list_drifts(plan), *rates, *list_trainings(plan, chosen)]
    pieces += list_calm_trainings(plan)
    assert len({piece.name for piece in pieces}) == len(pieces)
    assert {piece.seed for piece in rates} == {RATE_SEED, RATE_SEED + 1}
    assert {piece.seed for piece in list_trainings(plan, chosen)} == set(range(8))


def test_a_tiny_study_is_written_and_read_back(tmp_path, monkeypatch):
    records = compute_all(tmp_path)
    text = report.make(records, tmp_path)
    assert "| grpo | slots-wide 0.001 | 0.000 | 0.000 |" in text
    assert writing.write(report.load(tmp_path)) == text
    assert (tmp_path / "training.png").stat().st_size > 1000
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- python examples/study/pivots.py -->\nold\n<!-- end -->\nafter\n")
    report.publish(tmp_path, tmp_path / "results", page)
    assert text in page.read_text()
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("<!-- end -->\nafter\n")
    assert "old" not in page.read_text()
    monkeypatch.chdir(tmp_path)
    report.publish(Path("results"), tmp_path / "results", page)  # the published ones anew
    assert text in page.read_text()


def test_what_is_published_is_what_the_published_records_say():
    records = report.load(ROOT / "examples/study/results-pivots")
    assert writing.write(records) in (ROOT / "docs/study.md").read_text(encoding="utf-8")


def test_what_is_recorded_is_not_computed_again(tmp_path):
    (piece, *_) = list_warm_ups(TINY)
    (tmp_path / f"{piece.name}.json").write_text('{"kind": "warm-up", "kept": true}')
    assert work.work_off([piece], TINY, tmp_path, 1, "warm-ups") == [{"kind": "warm-up", "kept": True}]


def test_a_spoiled_record_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "drift.json"
    path.write_text('{"kind": garbage')
    with pytest.raises(ValueError, match=r"drift\.json is spoiled .*delete it"):
        work.read(path)


def test_another_plan_in_the_same_folder_is_refused(tmp_path):
    work.remember(TINY, tmp_path)
    with pytest.raises(ValueError, match="another plan; give another --output"):
        work.remember(replace(TINY, seeds=3), tmp_path)


def test_unknown_cells_are_refused_before_computing():
    found = run_command("--cells", "slots-wide", "maze-wide")
    assert found.returncode == 2
    assert "unknown cells ['maze-wide']; there are slots-wide, slots-narrow, walk-wide" in found.stderr


@pytest.mark.slow
def test_a_short_study_from_the_command(tmp_path):
    done = run_command("--plan", "smoke", "--output", tmp_path, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "4/4" in done.stderr
    kinds = [record["kind"] for record in json.loads((tmp_path / "records.json").read_text())]
    assert kinds == [*3 * ["warm-up"], "drift", "drift", "rate", "rate", *4 * ["train"], *4 * ["calm"]]
