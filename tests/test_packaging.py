"""The folders, the links and the list of packages describe one tree; the pins serve the extras."""

import os
import tomllib
from pathlib import Path

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


@pytest.mark.parametrize("name", LINKED)
def test_a_link_is_relative_and_leads_to_the_folder(name):
    link = ROOT / "credit" / name
    assert os.readlink(link) == f"../{name}"
    assert link.resolve() == (ROOT / name).resolve()


def test_the_package_folders_are_mapped_as_they_are_linked():
    assert SETUPTOOLS["package-dir"] == {"credit": "credit"} | {f"credit.{name}": name for name in LINKED}


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


# What each environment of noxfile.py has to hold; OpenRLHF's and Tunix's leave some of what those ask for out.
ENVIRONMENTS = {
    "core": ("test", "torch", "jax"),
    "trl": ("trl", "demo", "study"),
    "verl": ("verl",),
    "openrlhf": ("openrlhf",),
    "tunix": ("tunix",),
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
