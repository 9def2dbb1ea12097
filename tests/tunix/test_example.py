"""The example's one command, for two steps."""

import json
import runpy
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples/tunix/train.py"


def test_one_command_trains_reports_and_plots(monkeypatch, capsys, tmp_path):
    flags = {
        "--estimator": "dapo",
        "--warm-up": "0.0",
        "--steps": "2",
        "--prompts": "2",
        "--generations": "4",
        "--eval-size": "8",
        "--output": str(tmp_path),
    }
    arguments = [word for pair in flags.items() for word in pair]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    assert "on 8 held-out prompts" in printed
    assert (tmp_path / "training.png").stat().st_size > 10_000
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert all("credit/overlong_penalty_mean" in line for line in lines)
