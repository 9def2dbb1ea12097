"""--credit.plugin: files and modules, in the driver and in Ray's workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import credit
from credit.adapters.openrlhf import plugins

NAME = "--algo.advantage.estimator"
SOURCE = """
from typing import Literal
import credit


class Mine(credit.DGPO):
    name: Literal[{name!r}] = {name!r}
    strength: float = 2.0
"""


def write(folder, file, name):
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(SOURCE.format(name=name))
    return str(folder / file)


def test_a_file_brings_an_estimator(parse, chosen, tmp_path):
    path = write(tmp_path, "my-estimator.py", "of_file")
    args = parse(NAME, "of_file", "--credit.plugin", path, "--credit.strength", "3")
    assert args.credit.estimator.strength == 3.0
    assert chosen == [["credit_plugin_my_estimator"]]
    assert not hasattr(args, "plugin")


def test_a_shortened_flag_is_read_as_openrlhfs_are(parse, chosen, tmp_path):
    path = write(tmp_path, "short.py", "of_short")
    assert parse(NAME, "of_short", "--credit.plug", path).credit.estimator.name == "of_short"
    assert chosen == [["credit_plugin_short"]]


def test_a_file_may_have_the_name_of_a_module(parse, tmp_path, monkeypatch):
    """Its own name is another one, and a path from where the command runs is enough."""
    write(tmp_path, "torch.py", "of_torch")
    monkeypatch.chdir(tmp_path)
    assert parse(NAME, "of_torch", "--credit.plugin", "torch.py").credit.estimator.name == "of_torch"
    assert type(credit.get("of_torch")).__module__ == "credit_plugin_torch"


def test_several_plugins_by_one_flag_or_by_two(parse, chosen, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path, "of_module.py", "of_module")
    path = write(tmp_path, "other_file.py", "of_other_file")
    for given in (["of_module", path], ["of_module", "--credit.plugin", path]):
        args = parse(
            NAME,
            "mix",
            "--credit.parts",
            '[[1, "of_module"], [1, "of_other_file"]]',
            "--credit.plugin",
            *given,
        )
        assert [part.name for _, part in args.credit.estimator.parts] == ["of_module", "of_other_file"]
        assert chosen == [["of_module", "credit_plugin_other_file"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("my_estimatro.py", "my_estimatro.py: there is no such file; give its path, or the name of a module"),
        ("folder.py", "folder.py: there is no such file"),
        (
            "my_estimatro",
            "my_estimatro: no module of that name is found; give a module that Python finds, or",
        ),
        ("here", "here: no module of that name is found; to load the file, give here.py"),
        ("./here", "./here: no module of that name is found; to load the file, give here.py"),
        (
            "within.here",
            "within.here: no module of that name is found; to load the file, give within/here.py",
        ),
        ("os.nowhere", "os.nowhere: no module of that name is found"),
        (".", ".: no module of that name is found"),
    ],
)
def test_what_is_not_there_is_one_line(parse, capsys, tmp_path, monkeypatch, given, message):
    write(tmp_path, "here.py", "of_here")
    write(tmp_path / "within", "here.py", "of_here_within")
    (tmp_path / "folder.py").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", ".")])
    with pytest.raises(SystemExit) as ended:
        parse(NAME, "grpo", "--credit.plugin", given)
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"error: --credit.plugin {message}" in last


def test_two_files_of_one_name_are_refused(parse, capsys, tmp_path):
    one = write(tmp_path / "a", "twin.py", "of_twin_a")
    two = write(tmp_path / "b", "twin.py", "of_twin_b")
    with pytest.raises(SystemExit):
        parse(NAME, "of_twin_a", "--credit.plugin", one, two)
    assert f"{two}: {one} has the same name; rename one" in " ".join(capsys.readouterr().err.split())


def test_an_error_within_a_plugin_is_its_own(parse, tmp_path):
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        parse(NAME, "grpo", "--credit.plugin", str(tmp_path / "broken.py"))


ON_RAY = """
import os
import sys

import credit
import ray
from credit.adapters.openrlhf import plugins, ray_start
from credit.adapters.openrlhf.settings import parse_settings


def describe(choice):
    estimator = choice.estimator
    return [type(estimator).__module__, estimator.strength, os.getcwd()]


@ray.remote
class Trainer:
    '''As OpenRLHF's, which hands its arguments on to workers.'''

    def ask(self, choice):
        return ray.get(ray.remote(describe).remote(choice))


name = plugins.load(sys.argv[1])
start = ray_start.with_worker_setup(ray.init, [name, "only_in_the_driver"])
small = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 * 2**20}
try:
    start(runtime_env={"env_vars": {}, "working_dir": sys.argv[2]}, **small)
except RuntimeError as error:  # Ray runs all the same
    print(error)
choice = parse_settings("of_worker", {"strength": 5})
print(ray.get(Trainer.remote().ask.remote(choice)))
"""


def test_a_file_reaches_workers_that_run_elsewhere(tmp_path):
    """An estimator goes through an actor to a task, both in another folder than the command's."""
    write(tmp_path / "plugins", "for_workers.py", "of_worker")
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, "plugins/for_workers.py", str(tmp_path / "work")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "['credit_plugin_for_workers', 5.0, '" in done.stdout, done.stderr[-3000:]
    assert f"'{tmp_path}" not in done.stdout  # Ray runs them in a copy of the working directory
    assert "Ray's workers do not find only_in_the_driver of --credit.plugin; install it on" in done.stdout


def test_a_file_that_a_node_lacks_is_an_error_with_its_path(monkeypatch, tmp_path):
    monkeypatch.setenv(plugins.FILES, f'{{"credit_plugin_gone": "{tmp_path}/gone.py"}}')
    plugins.find_files()
    with pytest.raises(ModuleNotFoundError, match="gone.py is no file here; give a path that every node"):
        __import__("credit_plugin_gone")
    assert Path(tmp_path).is_dir()
