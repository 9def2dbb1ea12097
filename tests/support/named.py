"""Every estimator of the package, with what its settings have no default for."""

from functools import cache

import credit

REQUIRED = {"mix": {"parts": [(0.7, credit.GRPO()), (0.3, credit.DGPO(tau=0.1))]}}
NAMES = sorted(
    n
    for n, kind in credit.estimators.base.estimator_classes().items()
    if kind.__module__.startswith("credit.")
)


@cache  # JAX compiles anew for an estimator whose equals have all been collected
def make(name, **settings):
    return credit.get(name, **REQUIRED.get(name, {}), **settings)
