"""What help() shows: an example that runs for every public name, and a text for every field and setting."""

import doctest
import re
import sys
from inspect import getdoc, isclass, isfunction

import pytest

import credit
from credit import groups, lens, tokens
from credit.estimators.base import CLASSES


def public_objects():
    """The public functions and classes by dotted name."""
    modules = (credit, groups, tokens, lens)
    found = {
        f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in module.__all__
    }
    return {name: value for name, value in found.items() if isclass(value) or isfunction(value)}


PUBLIC = public_objects()


@pytest.fixture
def registry():
    """Only the package's estimators, without those that other tests or examples define."""
    known = dict(CLASSES)
    for name, kind in known.items():
        if not kind.__module__.startswith("credit."):
            del CLASSES[name]
    yield
    CLASSES.clear()
    CLASSES.update(known)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_every_public_name_runs(name):
    value = PUBLIC[name]
    module = sys.modules[value.__module__]
    examples = doctest.DocTestFinder().find(value, name, module=module, globs={})
    assert any(each.name == name and each.examples for each in examples), (
        f"the docstring of {name} has no example; add one that starts with >>>"
    )
    report = []
    for each in examples:
        failed, _ = doctest.DocTestRunner(verbose=False).run(each, out=report.append)
        assert not failed, "".join(report)


@pytest.mark.parametrize(
    "kind", [credit.Rollouts, credit.TokenStatistics, credit.Credit, credit.DeviationBounds]
)
def test_every_field_is_described_once_for_the_class_and_for_help(kind):
    text = " ".join(getdoc(kind).split())
    for name in kind._fields:
        described = getattr(kind, name).__doc__
        assert f"{name}: {described}" in text
        assert not described.startswith("Alias for field")


SETTINGS = [
    *(kind for kind in CLASSES.values() if kind.__module__.startswith("credit.")),
    *(credit.Estimator, credit.Redistributing, credit.PolicyLoss, credit.Schedule, lens.Completion),
]


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_setting_is_described_in_the_schema_and_in_help(kind):
    properties = kind.model_json_schema()["properties"]
    text = " ".join(getdoc(kind).split())
    for name in kind.model_fields.keys() - {"name"}:
        described = " ".join(properties[name].get("description", "").split())
        assert described, f"describe {kind.__name__}.{name} by a string below it"
        default = "" if kind.model_fields[name].is_required() else r" \(default .+?\)"
        assert re.search(rf"\b{name}{default}: {re.escape(described)}", text), name


def test_a_setting_of_a_class_of_ones_own_is_described_too():
    class Mine(credit.Redistributing):
        """Credit by surprise."""

        power: float = 2.0
        """Exponent of the surprise."""

    assert "Settings:" in Mine.__doc__
    assert "\n    power (default 2.0): Exponent of the surprise." in Mine.__doc__
    assert "\n    tau (default 0.5): Temperature of the softmax" in Mine.__doc__
