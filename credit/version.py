"""The version of the code that runs, which is not always the one that is installed."""

from importlib import metadata
from pathlib import Path

DISTRIBUTION = "token-credit"


def find_version(package: Path = Path(__file__).parent) -> str:
    """The version of the installed distribution; a checkout that is not installed says so.

    A checkout has the project's pyproject.toml beside the package. Where its version is not the installed
    one, or nothing is installed, the result is the checkout's version with the local label `+checkout`.
    Without either the version is `0+unknown`.
    """
    try:
        installed = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        installed = None
    checkout = _read_project_version(package.parent / "pyproject.toml")
    if checkout is not None and checkout != installed:
        return f"{checkout}+checkout"
    return installed or "0+unknown"


def _read_project_version(path: Path) -> str | None:
    """The version in our own pyproject.toml, or None if there is none."""
    if not path.is_file():
        return None
    import tomllib  # read in checkouts only

    project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    return str(project["version"]) if project.get("name") == DISTRIBUTION else None
