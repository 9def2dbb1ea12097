"""A client's project, as type checkers see it: right uses pass, and a wrong setting is an error at its line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLIENT = """\
import credit

mixed = credit.Mix(parts=[(0.7, credit.GRPO()), (0.3, credit.DGPO(tau=0.1))])
found: credit.Estimator = credit.get("dgpo", tau=0.1)
scheduled = credit.DGPO(tau=credit.Schedule(start=1.0, end=0.1), kappa=2)
everything: list[str] = credit.__all__
wrong = credit.DGPO(tau="hot")
"""
CHECKERS = {
    "mypy": ("-m", "mypy", "--strict", "client.py"),
    # The package index has pyright only as a downloader; basedpyright is the same checker as a wheel.
    "pyright": ("-m", "basedpyright", "--level", "error"),
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_wrong_setting_is_the_only_error_of_a_client(checker, tmp_path, monkeypatch):
    (tmp_path / "client.py").write_text(CLIENT)
    config = (
        f'{{"extraPaths": ["{ROOT.as_posix()}"], "typeCheckingMode": "standard", "include": ["client.py"]}}'
    )
    (tmp_path / "pyrightconfig.json").write_text(config)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    command = [sys.executable, *CHECKERS[checker]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if "client.py:" in line and "error" in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert "client.py:7" in errors[0]
    assert "tau" in errors[0]
