"""`python -m credit` and the other commands: what they list, their --help, and flags that they do not know."""

import json
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import credit
from credit.__main__ import COMMANDS, main
from credit.estimators.registry import estimator_classes
from credit.version import find_version

ROOT = Path(__file__).parents[1]
LIGHT = ("credit.__main__", "credit.check", "credit.lens.__main__", "credit.table")
HEAVY = {"torch", "jax", "transformers", "trl", "ray", "rich"}


def runnable_modules():
    """Every module that does something under `python -m`, by the name that follows -m."""
    for folder in ("credit", "backends", "adapters"):
        for path in (ROOT / folder).rglob("*.py"):
            if '__name__ == "__main__"' in path.read_text():
                inside = path.relative_to(ROOT / folder).with_suffix("").parts
                parts = inside if folder == "credit" else (folder, *inside)
                yield ".".join(("credit", *parts)).removesuffix(".__main__")


def test_the_overview_lists_every_command_and_estimator(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert credit.__version__ in shown
    assert sorted(COMMANDS) == sorted({*runnable_modules()} - {"credit"})
    listed = re.findall(r"^  python -m (\S+) ", shown, re.MULTILINE)
    assert listed == list(COMMANDS)
    for name, kind in estimator_classes().items():
        if kind.__module__.startswith("credit."):  # other tests register estimators of their own
            title = re.escape(kind.__doc__.partition("\n")[0])
            assert re.search(rf"^  {name} +{title}$", shown, re.MULTILINE)


def test_the_version_is_a_flag(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == credit.__version__


@pytest.mark.parametrize("module", LIGHT)
def test_help_is_answered_without_heavy_imports_and_without_running(module):
    code = (
        "import json, runpy, sys\n"
        "sys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as stopped:\n"
        "    print(json.dumps([stopped.code, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *shown, last = done.stdout.splitlines()
    status, loaded = json.loads(last)
    assert status == 0
    assert shown[0].startswith(f"usage: python -m {module.removesuffix('.__main__')} ")
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("module", LIGHT)
@pytest.mark.parametrize("flag", ["--unknown", "--hel"])
def test_an_unknown_or_shortened_flag_is_an_error(module, flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        import_module(module).main([flag])
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert flag in shown.err
    assert not shown.out


# --- the version and the public names ---------------------------------------------------------------------


def write_project(folder, version, name="token-credit"):
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "{version}"\n')
    return folder / "credit"


def test_a_checkout_that_is_not_installed_says_so(tmp_path, monkeypatch):
    installed = {"token-credit": "1.2"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    assert find_version(tmp_path / "credit") == "1.2"
    assert find_version(write_project(tmp_path, "1.2")) == "1.2"
    assert find_version(write_project(tmp_path, "1.3")) == "1.3+checkout"
    assert find_version(write_project(tmp_path, "9", name="another")) == "1.2"
    installed.clear()
    assert find_version(write_project(tmp_path, "1.3")) == "1.3+checkout"
    assert find_version(tmp_path / "nowhere" / "credit") == "0+unknown"


def test_the_version_is_the_projects():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE).group(1)
    assert credit.__version__.removesuffix("+checkout") == declared


def test_dir_shows_the_public_names_and_a_star_import_brings_them():
    assert sorted(dir(credit)) == sorted([*credit.__all__, "__version__"])
    assert len(set(credit.__all__)) == len(credit.__all__)
    found = {}
    exec("from credit import *", found)
    assert found.keys() - {"__builtins__"} == set(credit.__all__)


def test_submodules_can_be_imported():
    import credit.estimators
    import credit.loss

    assert credit.loss.PolicyLoss is credit.PolicyLoss
    assert credit.estimators.__name__ == "credit.estimators"
