"""Checks that the installed framework is the one that an adapter is written for.

Adapters override and call functions of their framework, private ones among them. Each adapter lists
them in its own hooks.py in a table of this form, and they are compared with the installed release
before anything else happens:

    {"package.module:Class": {"function": "self first second"}, "package.module": {"function": "first"}}
"""

import inspect
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pkgutil import resolve_name

from packaging.specifiers import SpecifierSet

from credit.adapters.framework import Framework

FunctionTable = Mapping[str, Mapping[str, str]]
"""For each module or class, its functions with the names of their parameters, separated by blanks."""


def check_framework(framework: Framework, functions: FunctionTable) -> None:
    """Raises ImportError unless the release is supported and has all functions with these parameters."""
    check_version(framework)
    check_functions(framework, functions)


def check_version(framework: Framework) -> None:
    """Raises ImportError unless the installed release of the framework is in the supported range."""
    name, supported = framework.distribution, framework.supported
    install = f"pip install '{framework.requirement}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        raise ImportError(f"credit's adapter needs {name}, which is not installed; {install}") from None
    if not SpecifierSet(supported).contains(found, prereleases=True):
        raise ImportError(f"credit supports {name} {supported} and found {found}; {install}")


def check_functions(framework: Framework, functions: FunctionTable) -> None:
    """Raises ImportError unless the framework has these functions with exactly these parameters.

    The error names every function that differs, so that one look shows what a new release has changed.
    """
    changes = [change for owner in functions for change in _list_changes(framework, owner, functions[owner])]
    if changes:
        raise ImportError("; ".join([*changes, _supported(framework)]))


def _list_changes(framework: Framework, owner: str, signatures: Mapping[str, str]) -> Iterator[str]:
    try:
        place = resolve_name(owner)
    except (ImportError, AttributeError) as error:
        yield str(error)
        return
    for name, parameters in signatures.items():
        function, expected = getattr(place, name, None), parameters.split()
        found = None if function is None else list(inspect.signature(function).parameters)
        if found != expected:
            state = "is missing" if found is None else f"takes ({', '.join(found)})"
            release = f"{framework.distribution} {version(framework.distribution)}"
            expects = f"credit expects ({', '.join(expected)})"
            yield f"{place.__name__}.{name} {state} in {release}; {expects}"


def _supported(framework: Framework) -> str:
    return f"credit supports {framework.distribution} {framework.supported}"
