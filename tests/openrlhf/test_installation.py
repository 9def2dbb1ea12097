"""The commands that docs/openrlhf.md gives for a machine without CUDA are those of our own session, and work."""

import importlib.metadata
import os
import re
import shlex
import subprocess
import venv
from pathlib import Path

import pytest
from nox_sessions import list_installs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/openrlhf.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)

# What OpenRLHF asks for and its training on a CPU never imports; with CUDA pip installs all of it.
LEFT_OUT = {
    *("bitsandbytes", "flash-attn", "isort", "jsonlines", "loralib", "optimum", "optree", "pynvml"),
    *("torchmetrics", "transformers-stream-generator", "wandb", "wheel"),
}
OF_THE_SESSION = {"pip", "setuptools", "wheel"}


def documented():
    """The environment and the arguments of each pip install in the block that reads the constraints."""
    (block,) = [block for block in BLOCKS if "constraints/openrlhf.txt" in block]
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        settings = [word for word in words if re.match(r"[A-Z_]+=", word)]
        words = words[len(settings) :]
        if words[:2] == ["pip", "install"]:
            found.append((dict(setting.split("=") for setting in settings), words[2:]))
    return found


def test_the_documented_commands_are_those_of_our_session(monkeypatch):
    installed = list_installs("openrlhf", monkeypatch)
    assert [words for _, words in documented()] == [words for _, words in installed]
    assert documented()[-1][0] == installed[-1][0]  # for DeepSpeed, which pip builds in the last


def pins():
    lines = (ROOT / "constraints/openrlhf.txt").read_text().splitlines()
    each = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in each}


def required(name, extras):
    """The requirements of an installed package that hold on this machine."""
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield requirement


def test_every_requirement_is_pinned_at_a_version_that_satisfies_it():
    """pip does not look at requirements with --no-deps, so the pins alone have to be whole."""
    pinned, missing, wrong = pins(), [], []
    for name in pinned:
        if name == "torch":
            continue  # installed with what it requires
        for requirement in required(name, ("default",) if name == "ray" else ()):
            other = canonicalize_name(requirement.name)
            allowed = LEFT_OUT if name == "openrlhf" else OF_THE_SESSION
            if other not in pinned and other not in allowed:
                missing.append(f"{name} needs {requirement}")
            elif other in pinned and not requirement.specifier.contains(pinned[other], prereleases=True):
                wrong.append(f"{name} needs {requirement}, pinned is {pinned[other]}")
    assert (missing, wrong) == ([], [])


def test_what_is_pinned_is_what_the_tests_run_with():
    assert {name: importlib.metadata.version(name).split("+")[0] for name in pins()} == pins()


@pytest.mark.slow
def test_the_documented_commands_work_in_a_fresh_environment(tmp_path):
    """Downloads OpenRLHF and all that it needs; its whole command, with ours, then prints its help."""
    venv.create(tmp_path, with_pip=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PATH"] = os.pathsep.join([str(tmp_path / "bin"), environment["PATH"]])
    environment["VIRTUAL_ENV"] = str(tmp_path)
    for settings, words in documented():
        subprocess.run(["pip", "install", *words], cwd=ROOT, env=environment | settings, check=True)
    done = subprocess.run(
        [str(tmp_path / "bin/python"), "-m", "openrlhf_on_cpu", "--help"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT / "examples/openrlhf/on_cpu")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for flag in ("--credit.tau", "--rollout.n_samples_per_prompt"):
        assert flag in done.stdout
