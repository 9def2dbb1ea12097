"""Every estimator of the package, with what its settings have no default for."""

from functools import cache

import credit
from credit.estimators.registry import estimator_classes
from credit.selftest.estimators import REQUIRED

PACKAGE = {
    n: kind for n, kind in sorted(estimator_classes().items()) if kind.__module__.startswith("credit.")
}


def list_unset(name):
    """The settings of an estimator that have neither a default nor a value in REQUIRED."""
    fields = PACKAGE[name].model_fields
    return [field for field in fields if fields[field].is_required() and field not in REQUIRED.get(name, {})]


NAMES = [name for name in PACKAGE if not list_unset(name)]  # tests/test_new_estimator.py tells of others


@cache  # JAX compiles anew for an estimator whose equals have all been collected
def make(name, **settings):
    return credit.get(name, **REQUIRED.get(name, {}), **settings)
