"""One file per estimator, named as in the registry; importing this package registers every file in it.

To add one: write credit/estimators/<name>.py and export its class in credit/__init__.py. The tests in
tests/test_new_estimator.py say what else is missing.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
