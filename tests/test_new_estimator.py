"""What an estimator of the package needs beside its own file; each test says what to add and where.

Its worked example is asked for in tests/test_worked_examples.py, its row of the README's table in
tests/test_readme.py. Every other test leaves out an estimator that lacks something here.
"""

import re
from inspect import getdoc

import oracle
import pytest
from named import NAMES, PACKAGE, list_unset, make

import credit
from credit.fields import EXTRAS
from credit.types import FIELDS

every = pytest.mark.parametrize("name", PACKAGE)


@every
def test_it_has_a_file_of_its_name(name):
    expected = f"credit.estimators.{name}"
    assert PACKAGE[name].__module__ == expected, f"move {PACKAGE[name].__name__} to {expected}"


@every
def test_it_is_exported(name):
    kind = PACKAGE[name]
    line = f"from {kind.__module__} import {kind.__name__} as {kind.__name__}"
    assert getattr(credit, kind.__name__, None) is kind, f"add the line `{line}` to credit/__init__.py"
    assert kind.__name__ in credit.__all__


@every
def test_its_settings_have_values_to_test_with(name):
    unset = ", ".join(list_unset(name))
    assert not unset, f"give {unset} a default, or add {name!r} to REQUIRED in credit/selftest/estimators.py"


@pytest.mark.parametrize("name", NAMES)
def test_what_it_reads_has_a_rule(name):
    unknown = [need for need in make(name).required_fields if need not in FIELDS | EXTRAS]
    assert not unknown, (
        f"add a rule for {', '.join(unknown)} to EXTRAS in credit/fields.py, from which the tests draw values"
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_has_an_oracle(name):
    tables = ", ".join(oracle.list_missing_tables(make(name)))
    assert not tables, f"write {name}'s formula in loops into tests/support/oracle.py, in {tables}"


@every
def test_its_docstring_has_a_formula_and_cites_the_paper(name):
    text = getdoc(PACKAGE[name]) or ""
    where = "the first line of its docstring, indented by 4"
    assert re.match(r".+\n\n {4}\S", text), f"write {name}'s formula below {where}"
    if name != "mix":  # which is no paper's
        assert re.search(r"arXiv\s+\d{4}\.\d{5}", text), f"add `Source: arXiv <id>` to {name}'s docstring"
