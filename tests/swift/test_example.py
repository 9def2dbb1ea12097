"""The example's one command for two steps, the script for GPUs up to its command, and what docs/swift.md says."""

import importlib.metadata
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from commands import run_to_end
from nox_sessions import list_installs
from packaging.requirements import Requirement
from swift.arguments import RLHFArguments

from credit import lens
from credit.adapters.swift import train_with

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/swift"
DOCS = (ROOT / "docs/swift.md").read_text()
FLAG = re.compile(r"--([a-z][a-z0-9_]*)(?![a-z0-9_-])")  # pip's --no-deps is none
OF_SWIFT = {field.name for field in fields(RLHFArguments)}


def find_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def run_python(*arguments, folder):
    """What python prints in the folder, with this checkout's credit."""
    paths = os.pathsep.join(path for path in (str(ROOT), *sys.path) if path)
    return run_to_end([sys.executable, *map(str, arguments)], os.environ | {"PYTHONPATH": paths}, folder)


def test_one_command_trains_and_its_records_can_be_looked_at(tmp_path):
    """A reward that a model without warm-up earns, since warming up takes longer than all the rest."""
    flags = "--warm-up 0 --reward_funcs right_characters --learning_rate 1e-3 --steps 2 --output out"
    printed = run_python(EXAMPLE / "train_on_cpu.py", *shlex.split(flags), folder=tmp_path)
    (log,) = (tmp_path / "out/trained").glob("*/logging.jsonl")
    first, last = (line for line in map(json.loads, log.read_text().splitlines()) if "reward" in line)
    for name, start in (("deviation_max", 0.0), ("weight_std", 0.0), ("effective_token_fraction", 1.0)):
        assert first[f"credit/{name}"] == start
        assert last[f"credit/{name}"] != start
    row = rf"^credit/deviation_mean +0 +{last['credit/deviation_mean']:.4g}$"
    assert re.search(row, printed, re.MULTILINE)
    records = list(lens.read(log.parent / "credit.jsonl"))
    assert len(records) == 16
    assert {record.estimator["tau"] for record in records} == {0.1}  # that of credit_plugin.py
    (shown,) = re.findall(r"^python (-m credit\.lens .*)$", printed, re.MULTILINE)
    run_python(*shlex.split(shown), folder=tmp_path)
    (problem,) = {json.loads(record.prompt)[0]["content"] for record in records[:8]}
    assert problem.removesuffix(">") in (tmp_path / "lens.html").read_text()  # ">" is escaped there


@pytest.fixture
def gpu_command(tmp_path):
    """The command that train.sh ends in, with some arguments and variables."""
    stand_in = tmp_path / "swift"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)

    def run(*arguments, **variables):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        given = {"MODEL": "some/model", "DATA": "data.jsonl", "PATH": path} | variables
        command = ["bash", str(EXAMPLE / "train.sh"), *arguments]
        done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return run


def test_the_script_for_gpus_names_files_and_flags_that_there_are(gpu_command):
    found = gpu_command("--beta", "0.1")
    assert found[0] == "rlhf"
    assert found[-2:] == ["--beta", "0.1"]
    assert not {word[2:] for word in found if word.startswith("--")} - OF_SWIFT
    start = found.index("--external_plugins")
    assert all(Path(path).parent == EXAMPLE and Path(path).is_file() for path in found[start + 1 : start + 3])
    assert f'orms["{found[found.index("--reward_funcs") + 1]}"]' in (EXAMPLE / "reward.py").read_text()
    own = gpu_command(PLUGIN="my_credit.py")
    assert own[start + 2] == "my_credit.py"


def test_the_flags_that_the_docs_name_are_ms_swifts():
    assert set(FLAG.findall(DOCS)) - OF_SWIFT == set()


def test_the_docs_name_every_option_that_is_refused_and_every_setting():
    refused = FLAG.findall((ROOT / "adapters/swift/options.py").read_text())
    assert set(refused) - set(FLAG.findall(DOCS)) == set()
    settings = set(inspect.signature(train_with).parameters) - {"estimator"}
    assert {name for name in settings if f"`{name}" not in DOCS} == set()


def test_the_docs_show_the_plugin_of_the_example():
    (_, _, plugin) = (EXAMPLE / "credit_plugin.py").read_text().split('"""')
    lines = [line for line in plugin.splitlines() if line]
    assert [re.sub(r"\s*#.*", "", line) for line in find_blocks("python")[0].splitlines() if line] == lines


# --- the commands that install ms-swift -------------------------------------------------------------------


def test_the_documented_commands_are_those_of_our_session(monkeypatch):
    installed = [words for _, words in list_installs("swift", monkeypatch)]
    (block,) = [block for block in find_blocks("sh") if "constraints/swift.txt" in block]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [words[2:] for words in commands if words[:2] == ["pip", "install"]] == installed


def test_what_is_pinned_is_what_the_tests_run_with():
    lines = (ROOT / "constraints/swift.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = {pin.name: importlib.metadata.version(pin.name).split("+")[0] for pin in pins}
    assert found == {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
