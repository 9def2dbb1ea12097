"""The shell scripts for GPUs, up to the command that they end in."""

import os
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PRINTS = '#!/bin/sh\nprintf "%s\\n" "$@"\n'
GIVEN = {"MODEL": "some/model", "DATA": "data.jsonl", "TRAIN": "train.parquet", "VAL": "val.parquet"}


@pytest.fixture
def run(tmp_path):
    """Runs a script with a python that prints its arguments, and returns them."""
    stand_in = tmp_path / "python"
    stand_in.write_text(PRINTS)
    stand_in.chmod(0o755)

    def run(script, *arguments):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        command = ["bash", str(EXAMPLES / script), *arguments]
        environment = os.environ | GIVEN | {"PATH": path}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    return lambda *arguments: run(*arguments).stdout.splitlines()


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("openrlhf/estimators/*.txt")), ids=lambda f: f.stem)
def test_openrlhf_starts_with_the_flags_of_the_estimators_file(run, file):
    lines = (line.split("#")[0].split() for line in file.read_text().splitlines())
    flags = [word for line in lines for word in line]
    found = run("openrlhf/train.sh", file.stem, "--train.num_episodes", "2")
    assert found[: len(flags) + 2] == ["-m", "credit.adapters.openrlhf", *flags]
    assert found[-2:] == ["--train.num_episodes", "2"]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("verl/config/*.yaml")), ids=lambda f: f.stem)
def test_verl_starts_with_the_estimators_file(run, file):
    found = run("verl/train.sh", file.stem, "trainer.nnodes=2")
    assert found[found.index("--config-name") + 1] == file.stem
    assert (Path(found[found.index("--config-dir") + 1]) / file.name).is_file()
    assert found[-1] == "trainer.nnodes=2"
