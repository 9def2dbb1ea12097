"""What help() shows: an example that runs for every public name, and a text for every field and setting."""

import doctest
import re
import sys
from inspect import getdoc, isclass, isfunction

import pytest

import credit
from credit import groups, lens, tokens


def public_objects():
    """The public functions and classes by dotted name."""
    modules = (groups, tokens, lens)
    found = {
        f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in module.__all__
    }
    return {name: value for name, value in found.items() if isclass(value) or isfunction(value)}


PUBLIC = public_objects()


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


@pytest.mark.parametrize("kind", [credit.Rollouts, credit.TokenStatistics, credit.Credit])
def test_every_field_is_described_once_for_the_class_and_for_help(kind):
    text = " ".join(getdoc(kind).split())
    for name in kind._fields:
        described = getattr(kind, name).__doc__
        assert f"{name}: {described}" in text
        assert not described.startswith("Alias for field")


@pytest.mark.parametrize("kind", [credit.PolicyLoss, lens.Completion])
def test_every_setting_is_described_in_the_schema_and_in_help(kind):
    properties = kind.model_json_schema()["properties"]
    for name in kind.model_fields.keys() - {"name"}:
        described = " ".join(properties[name]["description"].split())
        default = "" if kind.model_fields[name].is_required() else r" \(default .+?\)"
        assert re.search(rf"\b{name}{default}: {re.escape(described)}", " ".join(getdoc(kind).split()))
