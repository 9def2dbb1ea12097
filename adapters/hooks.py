"""Checks that the installed framework is the one that an adapter is written for.

Adapters override and call functions of their framework, private ones among them. Each adapter lists
them in its own hooks.py in a table of this form, and they are compared with the installed release
before anything else happens:

    {
        "package.module": {"function": "first second"},  # with exactly these parameters
        "package.module:Class": {"function": {">=1.5": "self first"}},  # called in these releases alone
        "package.module:Config": "first second",  # made with these parameters among others
        "package.module:Class.attribute": {},  # which is there, whatever its parameters
    }
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pkgutil import resolve_name
from typing import Any

from packaging.specifiers import SpecifierSet

from credit.adapters.framework import Framework

Functions = Mapping[str, str | Mapping[str, str]]
"""Functions with the names of their parameters, separated by blanks; or with those of some releases."""

FunctionTable = Mapping[str, str | Functions]
"""For each module or class its functions, or for a class the names of parameters among others."""

ADDED_BY_RAY = "_ray_trace_ctx"
"""A parameter that `ray.remote` adds to the methods of the class that it makes an actor of."""


def check_framework(framework: Framework, functions: FunctionTable) -> None:
    """Raises ImportError unless the release is supported and has all functions with these parameters.

    A release that is newer than those supported runs with a warning if the framework's record says so.
    """
    check_version(framework)
    check_functions(framework, functions)
    if is_newer(framework):
        name, found = framework.distribution, version(framework.distribution)
        warnings.warn(
            f"credit supports {name} {framework.supported} and found {found}, which is newer. It runs, since "
            "all functions that credit uses have the parameters that credit expects; what they do may have "
            f"changed. If a result looks wrong, {_install(framework)}",
            stacklevel=2,
        )


def check_version(framework: Framework) -> None:
    """Raises ImportError unless the installed release of the framework is one that may run."""
    name = framework.distribution
    try:
        found = version(name)
    except PackageNotFoundError:
        raise ImportError(
            f"credit's adapter needs {name}, which is not installed; {_install(framework)}"
        ) from None
    if not (_contains(framework.supported, found) or (framework.runs_newer and is_newer(framework))):
        raise ImportError(
            f"credit supports {name} {framework.supported} and found {found}; {_install(framework)}"
        )


def is_newer(framework: Framework) -> bool:
    """Whether the installed release comes after all that the framework's record supports."""
    found = version(framework.distribution)
    bounds = map(str, SpecifierSet(framework.supported))
    lower = ",".join(bound for bound in bounds if not bound.startswith("<"))
    return _contains(lower, found) and not _contains(framework.supported, found)


def check_functions(framework: Framework, functions: FunctionTable) -> None:
    """Raises ImportError unless the framework has these functions with the parameters of its release.

    The error names every function that differs, so that one look shows what a new release has changed.
    """
    changes = [change for owner in functions for change in _list_changes(framework, owner, functions[owner])]
    if changes:
        supports = f"credit supports {framework.distribution} {framework.supported}"
        raise ImportError("; ".join([*changes, supports]))


def _list_changes(framework: Framework, owner: str, expected: str | Functions) -> Iterator[str]:
    release = version(framework.distribution)
    try:
        place = resolve_name(owner)
    except (ImportError, AttributeError) as error:
        yield str(error)
        return
    if isinstance(expected, str):
        found = inspect.signature(place).parameters
        lacking = [name for name in expected.split() if name not in found]
        if lacking:
            yield f"{place.__name__} takes no {', '.join(lacking)} in {framework.distribution} {release}"
        return
    for name, forms in expected.items():
        parameters = _find_form(forms, release)
        if parameters is not None:
            yield from _compare_parameters(framework, place, name, parameters.split())


def _find_form(forms: str | Mapping[str, str], release: str) -> str | None:
    """The parameters that a function has in that release; None: it is not called there."""
    if isinstance(forms, str):
        return forms
    found = (form for releases, form in forms.items() if _contains(releases, release))
    return next(found, None)


def _contains(releases: str, release: str) -> bool:
    return SpecifierSet(releases).contains(release, prereleases=True)


def _compare_parameters(framework: Framework, place: Any, name: str, expected: list[str]) -> Iterator[str]:
    function = getattr(place, name, None)
    found = None if function is None else _list_parameters(function)
    if found != expected:
        state = "is missing" if found is None else f"takes ({', '.join(found)})"
        release = f"{framework.distribution} {version(framework.distribution)}"
        expects = f"credit expects ({', '.join(expected)})"
        yield f"{place.__name__}.{name} {state} in {release}; {expects}"


def _list_parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != ADDED_BY_RAY]


def _install(framework: Framework) -> str:
    return f"pip install '{framework.requirement}'"
