"""The folders, the links and the list of packages describe one tree; the pins serve the extras."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
LINKED = ("backends", "adapters")


def own_packages(folder, name):
    """Packages below a folder by their installed names; links are not followed."""
    return {
        ".".join([name, *Path(place).relative_to(folder).parts])
        for place, _, files in os.walk(folder)
        if "__init__.py" in files
    }


def test_every_package_is_listed_once():
    found = own_packages(ROOT / "credit", "credit")
    for name in LINKED:
        found |= own_packages(ROOT / name, f"credit.{name}")
    listed = SETUPTOOLS["packages"]
    lacking, gone = found - set(listed), set(listed) - found
    assert not lacking, f"add {', '.join(sorted(lacking))} to tool.setuptools.packages in pyproject.toml"
    assert not gone, (
        f"remove {', '.join(sorted(gone))} from tool.setuptools.packages: there is no such folder"
    )
    assert len(listed) == len(found), "tool.setuptools.packages in pyproject.toml lists a package twice"


def test_every_python_file_is_in_a_package():
    for folder in ("credit", *LINKED):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path


@pytest.mark.parametrize("place", ["src/credit", *(f"credit/{name}" for name in LINKED)])
def test_a_link_is_relative_and_leads_to_the_folder(place):
    link = ROOT / place
    assert os.readlink(link) == f"../{link.name}"
    assert link.resolve() == (ROOT / link.name).resolve()


def test_all_packages_lie_in_the_folder_of_links():
    assert SETUPTOOLS["package-dir"] == {"": "src"}
    assert [each for each in os.listdir(ROOT / "src") if not each.endswith(".egg-info")] == ["credit"]
    for name in SETUPTOOLS["packages"]:
        assert (ROOT / "src").joinpath(*name.split("."), "__init__.py").exists(), name


@pytest.fixture(scope="module")
def beside_a_checkout(tmp_path_factory):
    """A folder with a checkout named credit, and what pip puts into an environment for `pip install -e credit`."""
    (needed,) = map(Requirement, PYPROJECT["build-system"]["requires"])
    hooks = PYPROJECT["build-system"]["build-backend"]
    (lowest,) = needed.specifier
    pytest.importorskip(needed.name, minversion=lowest.version, reason="it makes the editable install")
    folder = tmp_path_factory.mktemp("beside")
    checkout, installed = folder / "credit", folder / "installed"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in ("credit", "src", *LINKED):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
    build = f"import sys, {hooks} as hooks; hooks.build_editable(sys.argv[1])"
    made = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(made, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with ZipFile(*folder.glob("*.whl")) as wheel:
        wheel.extractall(installed)
    return folder


# As a new environment starts, with the packages of this one but without what its .pth files add.
STARTED = """
import site, sys
assert sys.path[0] == ""
sys.path += {packages}
site.addsitedir({installed})
import credit
assert credit.__file__ and credit.__file__.startswith({folder}), credit.__path__
{statement}
"""


@pytest.mark.parametrize(
    ("statement", "printed"),
    [
        ("import credit; print(credit.DGPO().name)", "dgpo"),
        (
            "import credit.adapters.rules, credit.backends; print(credit.adapters.rules.__name__)",
            "credit.adapters",
        ),
        ("import runpy; runpy.run_module('credit.table', run_name='__main__')", "| `dgpo` |"),
        (
            "from importlib.metadata import entry_points; from importlib.util import find_spec\n"
            "(plugin,) = entry_points(group='verl.plugins', name='credit'); print(find_spec(plugin.module).origin)",
            "plugin.py",
        ),
        ("import pickle, credit; print(pickle.loads(pickle.dumps(credit.DGPO(tau=0.1))).tau)", "0.1"),
    ],
)
def test_an_editable_install_works_beside_the_checkout(beside_a_checkout, statement, printed):
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    folder, installed = str(beside_a_checkout), str(beside_a_checkout / "installed")
    code = STARTED.format(
        folder=repr(folder), installed=repr(installed), packages=packages, statement=statement
    )
    done = subprocess.run(
        [sys.executable, "-E", "-S", "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


def test_the_types_are_shipped():
    assert (ROOT / "credit" / "py.typed").exists()
    assert "py.typed" in SETUPTOOLS["package-data"]["credit"]


def test_the_files_of_the_page_are_shipped():
    folder = ROOT / "credit" / "lens"
    shipped = {path for pattern in SETUPTOOLS["package-data"]["credit.lens"] for path in folder.glob(pattern)}
    others = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert shipped == others != set()


def test_nothing_is_importable_under_a_folders_bare_name():
    assert not {name.split(".")[0] for name in SETUPTOOLS["packages"]} & set(LINKED)


# What each environment of noxfile.py has to hold; OpenRLHF's, Tunix's, ms-swift's and SkyRL's leave some of what
# those ask for out.
ENVIRONMENTS = {
    "core": ("test", "torch", "jax", "compiled"),
    "trl": ("trl", "demo", "study"),
    "verl": ("verl",),
    "openrlhf": ("openrlhf",),
    "tunix": ("tunix",),
    "swift": ("swift",),
    "slime": ("torch",),  # slime itself is on no index
    "skyrl": ("skyrl",),
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_pins_are_releases_that_the_extras_ask_for(environment):
    lines = (ROOT / "constraints" / f"{environment}.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): release for name, release in pins.items()}
    asked = [*PROJECT["dependencies"], "pytest"]
    asked += [text for extra in ENVIRONMENTS[environment] for text in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints/{environment}.txt lacks {requirement}"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is not {requirement}"
