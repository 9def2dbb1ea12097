"""The script for GPUs up to its command, what docs/skyrl.md says, and the example's stand-ins."""

import importlib.metadata
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from flash_attn.bert_padding import pad_input, unpad_input
from nox_sessions import list_installs
from packaging.requirements import Requirement

from credit.adapters.skyrl import entrypoint
from credit.adapters.skyrl.config import CreditTrainConfig

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/skyrl"
DOCS = (ROOT / "docs/skyrl.md").read_text()
OPTION = re.compile(r"`((?:trainer|generator)\.[a-z_.]+)")
OURS = "trainer.algorithm.credit"


def find_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def has_option(name):
    """Whether SkyRL's config, with our two entries, has an option of that dotted name."""
    place = CreditTrainConfig()
    for part in name.rstrip(".").split("."):
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True


@pytest.fixture
def gpu_command(tmp_path):
    """The command that train.sh ends in, with some arguments."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)

    def run(*arguments):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        given = {"MODEL": "some/model", "DATA": "a file.parquet", "GPUS": "2", "PATH": path}
        command = ["bash", str(EXAMPLE / "train.sh"), *arguments]
        done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return run


def test_the_script_for_gpus_names_options_that_skyrl_takes(gpu_command):
    found = gpu_command("trainer.algorithm.credit.tau=0.1")
    assert found[:3] == [
        "-m",
        "skyrl.train.entrypoints.main_base",
        "trainer.override_entrypoint=credit.adapters.skyrl",
    ]
    cfg, choice = entrypoint.check_config(found[2:])
    assert choice.estimator.tau == 0.1
    assert cfg.data.train_data == ["a file.parquet"]
    assert cfg.trainer.placement.policy_num_gpus_per_node == 2
    entrypoint.registry.add("credit_dgpo", entrypoint.answers.answer)
    try:
        entrypoint.main_base.validate_cfg(cfg)
    finally:
        entrypoint.AdvantageEstimatorRegistry.unregister("credit_dgpo")


def test_the_options_that_the_docs_name_are_skyrls():
    named = {name for name in OPTION.findall(DOCS) if not name.startswith(OURS)}
    assert len(named) > 10
    assert not [name for name in sorted(named) if not has_option(name)]


def test_the_docs_name_every_option_that_is_refused():
    code = (ROOT / "adapters/skyrl/options.py").read_text()
    refused = set(re.findall(r"\"(?:trainer|generator)\.[a-z_.]+?([a-z_]+)=", code))
    assert len(refused) > 5
    assert not [name for name in sorted(refused) if name not in DOCS]


def test_the_documented_commands_are_those_of_our_session(monkeypatch):
    installed = [words for _, words in list_installs("skyrl", monkeypatch)]
    (block,) = [block for block in find_blocks("sh") if "constraints/skyrl.txt" in block]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [words[2:] for words in commands if words[:2] == ["pip", "install"]] == installed


def test_what_is_pinned_is_what_the_tests_run_with():
    lines = (ROOT / "constraints/skyrl.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = {pin.name: importlib.metadata.version(pin.name).split("+")[0] for pin in pins}
    assert found == {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


def test_the_stand_in_for_flash_attn_packs_and_unpacks():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]])
    values = torch.arange(24.0).view(3, 4, 2)
    packed, places, starts, longest, _ = unpad_input(values, mask)
    assert packed.shape == (9, 2)
    assert (starts.tolist(), longest) == ([0, 2, 6, 9], 4)
    whole = pad_input(packed, places, 3, 4)
    assert torch.equal(whole, values * mask[:, :, None])
